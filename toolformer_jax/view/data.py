"""What an annotation run has in its folder by now: the texts and their calls, and gains by tool.

The run may be going on: the folder is read without its lock. Its chunks are there whole or not at
all, so that what is read is right, if not yet everything.
"""

import bisect
import itertools
import json
import math
import os
import pathlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolformer_jax.annotation.run_dir import DOCUMENTS, MERGED, stage_name
from toolformer_jax.data.records import (
    Candidate,
    Document,
    ExecutedCall,
    ScoredCall,
    read_records,
)
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

KEPT, REJECTED, FAILED, PENDING = STATES = ('kept', 'rejected', 'failed', 'pending')
STATE_NAMES = {KEPT: 'kept', REJECTED: 'rejected', FAILED: 'no result', PENDING: 'not scored yet'}
_STAGES = {'sample': Candidate, 'execute': ExecutedCall, 'filter': ScoredCall}


@dataclass(frozen=True)
class ShownCall:
  """A call after the last stage that has processed it.

  Attributes:
    record: of that stage.
    gain: in nats; None before the call has losses.
    is_best: whether its gain is the highest of all calls to its tool at its position, so that
      merging may keep it.
  """

  record: Candidate
  gain: float | None
  is_best: bool

  @property
  def text(self) -> str:
    """The call and its result, as in `[Calculator(1 + 2) → 3]`."""
    record = self.record
    result = record.result if isinstance(record, ExecutedCall) else None
    return f'[{record.tool}({record.argument}){"" if result is None else f" → {result}"}]'

  def state(self, tau_f: float) -> str:
    """Returns the state of the call, one of STATES, at the threshold `tau_f`."""
    if self.gain is not None:
      return KEPT if self.is_best and self.gain >= tau_f else REJECTED
    return FAILED if getattr(self.record, 'failure', None) is not None else PENDING

  def verdict(self, tau_f: float) -> str:
    """Returns the state of the call in words, with the reason where it is known."""
    state = self.state(tau_f)
    if state == FAILED:
      return f'no result: {self.record.failure}'
    if state == PENDING and not isinstance(self.record, ExecutedCall):
      return 'not executed yet'
    if state == REJECTED and self.gain >= tau_f:
      return 'rejected: another call gains more here'
    return STATE_NAMES[state]


@dataclass(frozen=True)
class Text:
  """A text and all calls that were proposed for it: by position, then tool, best first."""

  document: Document
  calls: tuple[ShownCall, ...]


@dataclass(frozen=True)
class Stage:
  """How many chunks of a stage are done, and whether these are all."""

  name: str
  chunks: int
  is_complete: bool


@dataclass(frozen=True)
class ToolGains:
  """What the calls to one tool gain, in ascending order.

  Attributes:
    name: of the tool, as calls spell it.
    tau_f: threshold of the run.
    max_texts: merging keeps the calls of at most this many texts; infinite if the run does not say.
    calls: the gain of every call that has losses.
    places: the best gain of each place, of which merging keeps one call.
    texts: the best gain of each text.
  """

  name: str
  tau_f: float
  max_texts: float
  calls: tuple[float, ...]
  places: tuple[float, ...]
  texts: tuple[float, ...]

  def kept_calls(self, tau_f: float) -> int:
    """Returns how many calls are kept under a threshold, if no text is one too many."""
    return len(self.places) - bisect.bisect_left(self.places, tau_f)

  def kept_texts(self, tau_f: float) -> int:
    """Returns how many texts keep a call under a threshold, be they too many or not."""
    return len(self.texts) - bisect.bisect_left(self.texts, tau_f)


@dataclass(frozen=True)
class Run:
  """An annotation run, as far as it has come."""

  name: str
  tools: tuple[ToolGains, ...]
  stages: tuple[Stage, ...]
  texts: tuple[Text, ...]
  tokenizer: Tokenizer


class RunReader:
  """Reads the folder of a run, and again what is new in it."""

  def __init__(self, path: pathlib.Path):
    """Opens the folder `path`.

    Raises:
      UserError: it is not the output folder of an annotation run, or lacks the tokenizer.
    """
    self._path = path
    self._limits = _limits(path)
    if not (path / 'tokenizer.json').exists():
      raise UserError(f'{path} holds no tokenizer.json, which tells where in a text its calls are; '
                      'the same annotate command again adds it')
    self._tokenizer = Tokenizer.load(path)
    self._lock = threading.Lock()
    self._files: dict[str, dict[str, int]] = {}
    self._chunks: dict[str, tuple[tuple, list[Text]]] = {}
    self._run: Run | None = None

  def read(self) -> Run:
    """Returns what is in the folder now.

    Raises:
      UserError: a file is broken.
    """
    with self._lock:  # a page that is asked for meanwhile waits, and need not read the same
      files = {name: _files(self._path / name) for name in self._stage_names()}
      if self._run is None or files != self._files:
        self._run = self._assemble(files)
        self._files = files
      return self._run

  def _stage_names(self) -> list[str]:
    of_tools = [stage_name(tool, stage) for tool in self._limits for stage in _STAGES]
    return [DOCUMENTS, *of_tools, MERGED]

  def _assemble(self, files: dict[str, dict[str, int]]) -> Run:
    chunks = _chunks(files[DOCUMENTS])
    for chunk in chunks:
      stamps = tuple(stage.get(chunk) for stage in files.values())
      if self._chunks.get(chunk, (None,))[0] != stamps:
        self._chunks[chunk] = stamps, self._read_chunk(chunk, files)
    texts = tuple(text for chunk in chunks for text in self._chunks[chunk][1])
    stages = tuple(Stage(name, len(_chunks(stage)), '.COMPLETED' in stage)
                   for name, stage in files.items())
    tools = tuple(_gains(tool, limits, texts) for tool, limits in self._limits.items())
    return Run(self._path.resolve().name, tools, stages, texts, self._tokenizer)

  def _read_chunk(self, chunk: str, files: dict[str, dict[str, int]]) -> list[Text]:
    documents = list(read_records(self._path / DOCUMENTS / chunk, Document))
    calls: dict[str, list[Candidate]] = {document.id: [] for document in documents}
    for tool in self._limits:
      sources = {self._path / stage_name(tool, stage) / chunk: kind
                 for stage, kind in _STAGES.items() if chunk in files[stage_name(tool, stage)]}
      for call in _furthest([list(read_records(*source)) for source in sources.items()]):
        if call.tool != tool or call.document_id not in calls:
          raise UserError(f'chunk {chunk} of {self._path / tool.lower()} has a call to {call.tool} '
                          f'in the text {call.document_id}; that is no text of the chunk, or '
                          'another tool')
        calls[call.document_id].append(call)
    return [Text(document, _ordered(calls[document.id])) for document in documents]


def cut_at_calls(
    text: str, calls: Sequence[ShownCall], tokenizer: Tokenizer
) -> list[str | ShownCall]:
  """Returns `calls` and the pieces of `text` between them, in order; together they are the text.

  Args:
    text: of a document.
    calls: ordered by position.
    tokenizer: the one that the positions count tokens of.

  Raises:
    UserError: a position is outside the text.
  """
  spelled = text.encode('utf-8', 'replace')
  ids = tokenizer.encode(spelled.decode())
  ends = [0, *itertools.accumulate(len(tokenizer.token_bytes[i]) for i in ids)]
  pieces, at = [], 0
  for call in calls:
    position = call.record.position
    if position >= len(ends):
      raise UserError(f'the text {call.record.document_id} has {len(ids)} tokens, and a call at '
                      f'position {position}: it was annotated with another tokenizer')
    place = len(spelled[:ends[position]].decode('utf-8', 'ignore'))
    pieces += [text[at:place], call]
    at = place
  return [*pieces, text[at:]]


def _limits(path: pathlib.Path) -> dict[str, tuple[float, float]]:
  """Returns tau_f and max_texts by tool, from the configuration of a run.

  Raises:
    UserError: it is no annotation run.
  """
  try:
    tools = json.loads((path / 'run.json').read_text('utf-8'))['configuration']['tools']
    return {name: (float(settings['tau_f']), float(settings.get('max_texts', math.inf)))
            for name, settings in tools.items()}
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{path} is not the output folder of an annotation run: its run.json is '
                    'missing, or names no tools') from error


def _files(folder: pathlib.Path) -> dict[str, int]:
  """Returns the finished files of a stage and when each was written; none before it began.

  Raises:
    UserError: the folder cannot be read.
  """
  try:
    with os.scandir(folder) as entries:
      return {entry.name: entry.stat().st_mtime_ns for entry in entries
              if entry.name == '.COMPLETED' or entry.name.endswith('.jsonl')}
  except FileNotFoundError:
    return {}
  except OSError as error:
    raise UserError(f'cannot read {folder}: {error.strerror}') from error


def _chunks(files: Iterable[str]) -> list[str]:
  """Returns the chunks among the files of a stage, by number: 99999 comes before 100000."""
  return sorted((name for name in files if name.endswith('.jsonl')),
                key=lambda name: (len(name), name))


def _furthest(stages: Sequence[list[Candidate]]) -> list[Candidate]:
  """Returns each call once, as the last of `stages` that has it knows it."""
  found, seen = [], set()
  for calls in reversed(stages):
    found += [call for call in calls if _identity(call) not in seen]
    seen.update(map(_identity, calls))
  return found


def _identity(call: Candidate) -> tuple[str, int, str]:
  return call.document_id, call.position, call.argument


def _ordered(calls: Iterable[Candidate]) -> tuple[ShownCall, ...]:
  """Returns `calls` by position and tool, best first as merging ranks them."""
  by_argument = sorted(calls, key=lambda call: call.argument, reverse=True)
  shown, taken = [], set()
  for call in sorted(by_argument, key=lambda call: (call.position, call.tool, -_rank(call))):
    place = call.position, call.tool
    is_best = place not in taken and _rank(call) > -math.inf
    shown.append(ShownCall(call, call.gain if isinstance(call, ScoredCall) else None, is_best))
    if is_best:
      taken.add(place)
  return tuple(shown)


def _rank(call: Candidate) -> float:
  """Returns the gain of `call`; what has none, or losses that are no numbers, comes last."""
  gain = call.gain if isinstance(call, ScoredCall) else math.nan
  return -math.inf if math.isnan(gain) else gain


def _gains(tool: str, limits: tuple[float, float], texts: Iterable[Text]) -> ToolGains:
  calls, places, best = [], [], []
  for text in texts:
    scored = [call for call in text.calls if call.gain is not None and call.record.tool == tool]
    calls += [call.gain for call in scored if not math.isnan(call.gain)]
    of_places = [call.gain for call in scored if call.is_best]
    places += of_places
    best += [max(of_places)] if of_places else []
  return ToolGains(tool, *limits, *(tuple(sorted(gains)) for gains in (calls, places, best)))
