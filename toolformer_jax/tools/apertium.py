"""Translation to and from English with Apertium. Its pipelines of processes are kept running."""

import contextlib
import hashlib
import os
import pathlib
import re
import selectors
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import IO

from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import ToolError

MODES = pathlib.Path('/usr/share/apertium/modes')
# The modes that translate each language to English; for some languages through Spanish.
ROUTES = {
    'bs': ('hbs-eng',), 'ca': ('cat-eng',), 'eo': ('eo-en',), 'es': ('spa-eng',),
    'eu': ('eu-en',), 'fr': ('fr-es', 'spa-eng'), 'gl': ('gl-en',), 'hr': ('hbs-eng',),
    'is': ('isl-eng',), 'it': ('ita-spa', 'spa-eng'), 'mk': ('mkd-eng',),
    'pt': ('pt-es', 'spa-eng'), 'ro': ('ro-es', 'spa-eng'), 'sh': ('hbs-eng',),
    'sr': ('hbs-eng',),
}
# Those that translate from English, where there are such modes.
FROM_ENGLISH = {
    'bs': ('eng-hbs',), 'ca': ('eng-cat',), 'eo': ('en-eo',), 'es': ('eng-spa',),
    'fr': ('eng-spa', 'es-fr'), 'gl': ('en-gl',), 'hr': ('eng-hbs',),
    'it': ('eng-spa', 'spa-ita'), 'pt': ('eng-spa', 'es-pt'), 'sh': ('eng-hbs',),
    'sr': ('eng-hbs',),
}
_INSTALL = 'install Apertium and its pairs: `make apertium`, or Debian\'s packages apertium-*'

# Characters with a meaning in Apertium's stream format.
_SPECIAL = re.compile(r'([\[\]{}^$/\\@<>*#+~])')
_ESCAPED = re.compile(r'\\(.)')
# An end of sentence for the taggers, and an empty blank that no stage changes.
_END = '.[]'
_PIECE = 65536
_MAX_CHARS = 5000  # Even with escapes this fits into the buffer of a pipe, so writing cannot block.


class Apertium:
  """Translates texts. A pipeline is started by the first text that needs it."""

  def __init__(self, modes: pathlib.Path = MODES, time_limit_s: float = 5.0):
    """Finds the installed language pairs.

    Args:
      modes: directory of the mode files.
      time_limit_s: time limit of a text in each pipeline.

    Raises:
      UserError: no pair is installed.
    """
    self._modes, self._time_limit_s = modes, time_limit_s
    self._pipelines: dict[str, _Pipeline] = {}
    self._lock = threading.Lock()
    self.languages = sorted(language for language, route in ROUTES.items()
                            if self._has(route))
    if not self.languages or not shutil.which('lt-proc'):
      raise UserError(f'no language pair of Apertium to English is installed; {_INSTALL}')
    self.version = f'apertium-{self._installed()}'

  def _installed(self) -> str:
    """Returns a short hash of the installed pairs: their commands, and the sizes of their files.

    Those from English count too: back-translation keeps what they answer.
    """
    digest = hashlib.sha256()
    routes = filter(self._has, [*ROUTES.values(), *FROM_ENGLISH.values()])
    for mode in sorted({mode for route in routes for mode in route}):
      commands = _commands((self._modes / f'{mode}.mode').read_text('utf-8'))
      files = [pathlib.Path(word) for command in commands for word in command if '/' in word]
      sizes = [file.stat().st_size for file in files if file.is_file()]
      digest.update(repr((mode, commands, sizes)).encode())
    return digest.hexdigest()[:12]

  def _has(self, route: Sequence[str]) -> bool:
    return all((self._modes / f'{mode}.mode').is_file() for mode in route)

  def check_pair(self, source: str, target: str = 'en') -> None:
    """Raises ToolError if no installed pair translates from `source` into `target`."""
    self._route(source, target)

  def _route(self, source: str, target: str) -> Sequence[str]:
    """Returns the modes that translate from `source` into `target`.

    Raises:
      ToolError: there are none, or they are not installed.
    """
    into = 'English' if target == 'en' else target
    route = ROUTES.get(source) if target == 'en' else (
        FROM_ENGLISH.get(target) if source == 'en' else None)
    if route is None:
      raise ToolError(f'no pair: Apertium does not translate {source} to {into}')
    if not self._has(route):
      raise ToolError(f'no pair: {source} to {into} is not installed')
    return route

  def translate(self, text: str, language: str, target: str = 'en') -> str:
    """Returns the translation of `text` into `target`, by default English.

    Args:
      text: the text.
      language: ISO 639 code of its language.
      target: that of the translation. One of both languages is English.

    Raises:
      ToolError: the text is too long, or no installed pair translates so.
      ConnectionError: the processes failed. The next text starts them again.
    """
    route = self._route(language, target)
    if len(text) > _MAX_CHARS:
      raise ToolError('too long')
    for mode in route:
      text = self._pipeline(mode).translate(text)
    return text

  def close(self) -> None:
    """Ends the processes."""
    for pipeline in self._pipelines.values():
      pipeline.close()

  def _pipeline(self, mode: str) -> '_Pipeline':
    with self._lock:
      if mode not in self._pipelines:
        commands = _commands((self._modes / f'{mode}.mode').read_text('utf-8'))
        self._pipelines[mode] = _Pipeline(commands, self._time_limit_s)
      return self._pipelines[mode]


class _Pipeline:
  """A pipeline of processes. It reads texts that end with NUL, and writes their translations."""

  def __init__(self, commands: Sequence[Sequence[str]], time_limit_s: float):
    self._commands, self._time_limit_s = commands, time_limit_s
    self._processes: list[subprocess.Popen] = []
    self._lock = threading.Lock()

  def translate(self, text: str) -> str:
    """Returns the translation of `text` as one line. Raises ConnectionError if it fails."""
    line = ' '.join(text.replace('\0', ' ').split())
    with self._lock:
      try:
        if not self._processes:
          self._start()
        answer = self._ask(_SPECIAL.sub(r'\\\1', line) + _END)
      except (OSError, UnicodeError) as error:  # The processes cannot be used any more.
        self.close()
        raise ConnectionError(f'Apertium failed: {error}') from error
    return _ESCAPED.sub(r'\1', answer.removesuffix('[]').removesuffix('.')).strip()

  def close(self) -> None:
    """Ends the processes."""
    for process in self._processes:
      process.kill()
      process.wait()
      for stream in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(OSError):  # Unwritten data has no reader any more.
          stream.close()
    self._processes = []

  def _start(self) -> None:
    source: IO[bytes] | None = None
    for command in self._commands:
      process = subprocess.Popen(command, stdin=source or subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL)
      if source:
        source.close()  # The process has its own copy.
      self._processes.append(process)
      source = process.stdout

  def _ask(self, line: str) -> str:
    """Writes `line` and returns the output up to the next NUL."""
    source, output = self._processes[0].stdin, self._processes[-1].stdout
    if source is None or output is None:
      raise BrokenPipeError('its processes have no pipes')
    source.write(line.encode('utf-8') + b'\0')
    source.flush()
    deadline, answer = time.monotonic() + self._time_limit_s, b''
    with selectors.DefaultSelector() as selector:
      selector.register(output, selectors.EVENT_READ)
      while not answer.endswith(b'\0'):
        if not selector.select(max(deadline - time.monotonic(), 0)):
          raise TimeoutError(f'no translation within {self._time_limit_s} seconds')
        piece = os.read(output.fileno(), _PIECE)
        if not piece:
          raise BrokenPipeError('its processes have ended')
        answer += piece
    return answer[:-1].decode('utf-8')


def _commands(mode: str) -> list[list[str]]:
  """Returns the commands of a mode file, to be run without a shell."""
  # $1 is the option for unknown words, here without marks; $2 is for debugging.
  words = [{'$1': '-n', '$2': ''}.get(word, word) for word in shlex.split(mode, comments=True)]
  commands: list[list[str]] = [[]]
  for word in filter(None, words):
    if word == '|':
      commands.append([])
    else:
      commands[-1].append(word)
  return [[command[0], '-z', *command[1:]] for command in commands if command]
