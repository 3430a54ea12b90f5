"""Speaks a text into a sound file, with eSpeak NG or Flite."""

import hashlib
import pathlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import Literal

from toolformer_jax import calls
from toolformer_jax.errors import UserError
from toolformer_jax.media.table import write_medium
from toolformer_jax.runtime.paths import as_absolute_path
from toolformer_jax.runtime.validation import check
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.component import settings_hash

_PROGRAMS = ('espeak-ng', 'flite')
_PROGRAM_S = 20.0


@dataclass(frozen=True)
class SpeakConfig:
  """Settings of the tool that speaks.

  Attributes:
    folder: where the sound files are written: in the output folder of `annotate` and `evaluate`,
      otherwise in the working directory, unless it is an absolute path.
    synthesizer: the program that speaks: 'espeak-ng', 'flite', or 'any', the first of them that is
      installed.
    max_chars: longer texts are not spoken.
  """

  folder: str = field(default='spoken', repr=False)  # no result depends on it
  synthesizer: Literal['any', 'espeak-ng', 'flite'] = 'any'
  max_chars: int = 500

  def __post_init__(self) -> None:
    check(self, max_chars=(1, 100_000))


class Speak:
  """Speaks its argument into a file, and answers with its handle, such as `audio 2`."""

  name = 'Speak'
  time_limit_s = 30.0

  def __init__(self, config: SpeakConfig = SpeakConfig()):
    """Finds the program.

    Raises:
      UserError: it is not installed.
    """
    wanted = _PROGRAMS if config.synthesizer == 'any' else (config.synthesizer,)
    found = next((name for name in wanted if shutil.which(name)), None)
    if found is None:
      raise UserError(f'Speak needs {" or ".join(wanted)}, which is not installed: '
                      f'apt-get install {wanted[0]}')
    self._config, self._program = config, found
    self._folder = as_absolute_path(config.folder)
    self.version = f'{_version(found)}-{settings_hash(config)}'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the handle of the new sound, which later calls of the text can name.

    Raises:
      ToolError: the text is empty or too long.
      OSError: the program failed, or the file cannot be written.
    """
    text = ' '.join(calls.unquote(argument).replace('\0', ' ').split())
    if not any(character.isalnum() for character in text):
      raise ToolError('nothing to speak')
    if len(text) > self._config.max_chars:
      raise ToolError('too long')
    medium = write_medium(synthesize(text, self._program), self._folder)
    return context.media.add(medium.path)


def synthesize(text: str, program: str) -> bytes:
  """Returns a text as speech, a WAV file.

  Args:
    text: which the program reads from its standard input.
    program: 'espeak-ng' or 'flite'.

  Raises:
    OSError: the program failed or took too long.
  """
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder) / 'speech.wav'
    command = {'espeak-ng': ['espeak-ng', '--stdin', '-v', 'en-us', '-w', str(file)],
               'flite': ['flite', '-voice', 'slt', '-f', '/dev/stdin', '-o', str(file)]}[program]
    try:
      subprocess.run(command, input=text.encode('utf-8', 'replace'), timeout=_PROGRAM_S,
                     check=True, capture_output=True)
      return file.read_bytes()
    except subprocess.SubprocessError as error:
      raise OSError(f'{program} failed ({error})') from error


def _version(program: str) -> str:
  """Returns a hash of what a program says of its version.

  Raises:
    UserError: it says nothing.
  """
  try:
    done = subprocess.run([program, '--version'], capture_output=True, timeout=_PROGRAM_S)
  except (OSError, subprocess.SubprocessError) as error:
    raise UserError(f'Speak cannot run {program} --version ({error})') from error
  return f'{program}-{hashlib.sha256(done.stdout + done.stderr).hexdigest()[:8]}'
