"""The content of the pages: the texts of a run with their calls, and the gains of each tool.

The run may still be in progress; only its finished chunks are shown.
"""

import bisect
import itertools
import math
import pathlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolformer_jax.annotation.run_reader import (
  CALL_RECORDS,
  DOCUMENTS,
  MERGED,
  RunReader,
  stage_name,
)
from toolformer_jax.data.records import Candidate, Document, ExecutedCall, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

KEPT, REJECTED, FAILED, PENDING = STATES = ('kept', 'rejected', 'failed', 'pending')
STATE_NAMES = {KEPT: 'kept', REJECTED: 'rejected', FAILED: 'no result', PENDING: 'not scored yet'}


@dataclass(frozen=True)
class ShownCall:
  """A call, as recorded by the last stage that has processed it.

  Attributes:
    record: the record of that stage.
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
  """A text and all calls sampled for it, ordered by position, then tool, then falling gain."""

  document: Document
  calls: tuple[ShownCall, ...]


@dataclass(frozen=True)
class Stage:
  """The number of finished chunks of a stage, and whether the stage is complete."""

  name: str
  chunks: int
  is_complete: bool


@dataclass(frozen=True)
class ToolGains:
  """The gains of the calls to one tool, in nats and ascending order.

  Attributes:
    name: the tool's name, spelled as in calls.
    tau_f: threshold of the run.
    max_texts: largest number of texts that keep calls; infinite for runs that do not record it.
    calls: gains of all calls that have losses.
    positions: the largest gain at each position of a text, where merging keeps one call.
    texts: the largest gain in each text.
  """

  name: str
  tau_f: float
  max_texts: float
  calls: tuple[float, ...]
  positions: tuple[float, ...]
  texts: tuple[float, ...]

  def kept_calls(self, tau_f: float) -> int:
    """Returns how many calls are kept at a threshold, before the limit on texts."""
    return len(self.positions) - bisect.bisect_left(self.positions, tau_f)

  def kept_texts(self, tau_f: float) -> int:
    """Returns how many texts keep a call at a threshold, before the limit on texts."""
    return len(self.texts) - bisect.bisect_left(self.texts, tau_f)


@dataclass(frozen=True)
class Run:
  """The content of a run's folder at one time."""

  name: str
  tools: tuple[ToolGains, ...]
  stages: tuple[Stage, ...]
  texts: tuple[Text, ...]
  tokenizer: Tokenizer


class LiveRun:
  """Reads a run's folder repeatedly; a chunk is read again only if its files have changed."""

  def __init__(self, path: pathlib.Path):
    """Opens the folder `path`.

    Raises:
      UserError: it is not the output folder of an annotation run, or has no tokenizer.
    """
    self._folder = RunReader(path)
    self._thresholds = _thresholds(self._folder)
    self._tokenizer = self._folder.tokenizer()
    self._lock = threading.Lock()
    self._times: dict[str, dict[int, int]] = {}
    self._chunks: dict[int, tuple[tuple[int | None, ...], list[Text]]] = {}
    self._stages: tuple[Stage, ...] = ()
    self._run: Run | None = None

  def read(self) -> Run:
    """Returns the current content of the folder.

    Raises:
      UserError: a file is broken, or missing in a stage that is complete.
    """
    with self._lock:  # another request waits, and then uses the chunks that were read
      # Before the chunks are listed, so that all chunks of a complete stage are among them.
      complete = {name: self._folder.is_complete(name) for name in self._stage_names()}
      for name in complete:
        self._folder.all_chunks(name)
      times = {name: self._folder.chunk_times(name) for name in complete}
      stages = tuple(Stage(name, len(times[name]), is_complete)
                     for name, is_complete in complete.items())
      if self._run is None or (times, stages) != (self._times, self._stages):
        self._run = self._assemble(times, stages)
        self._times, self._stages = times, stages
      return self._run

  def _stage_names(self) -> list[str]:
    of_tools = [stage_name(tool, stage) for tool in self._thresholds for stage in CALL_RECORDS]
    return [DOCUMENTS, *of_tools, MERGED]

  def _assemble(self, times: dict[str, dict[int, int]], stages: tuple[Stage, ...]) -> Run:
    chunks = sorted(times[DOCUMENTS])
    for chunk in chunks:
      stamps = tuple(of_stage.get(chunk) for of_stage in times.values())
      if self._chunks.get(chunk, (None,))[0] != stamps:
        self._chunks[chunk] = stamps, self._read_chunk(chunk, times)
    texts = tuple(text for chunk in chunks for text in self._chunks[chunk][1])
    tools = tuple(_gains(tool, limits, texts) for tool, limits in self._thresholds.items())
    return Run(self._folder.path.resolve().name, tools, stages, texts, self._tokenizer)

  def _read_chunk(self, chunk: int, times: dict[str, dict[int, int]]) -> list[Text]:
    documents = self._folder.read(DOCUMENTS, chunk, Document)
    calls: dict[str, list[Candidate]] = {document.id: [] for document in documents}
    for tool in self._thresholds:
      stages = [self._folder.read_calls(tool, stage, chunk, documents)
                for stage in CALL_RECORDS if chunk in times[stage_name(tool, stage)]]
      for call in _latest(stages):
        calls[call.document_id].append(call)
    return [Text(document, _ordered(calls[document.id])) for document in documents]


def cut_at_calls(
    text: str, calls: Sequence[ShownCall], tokenizer: Tokenizer
) -> list[str | ShownCall]:
  """Returns `calls` and the pieces of `text` between them, in order.

  Args:
    text: the text of a document.
    calls: its calls, ordered by position.
    tokenizer: the tokenizer of the run; positions count its tokens.

  Raises:
    UserError: a position is outside the text.
  """
  utf8 = text.encode('utf-8', 'replace')
  ids = tokenizer.encode(utf8.decode())
  ends = [0, *itertools.accumulate(len(tokenizer.token_bytes[i]) for i in ids)]
  pieces, at = [], 0
  for call in calls:
    position = call.record.position
    if position >= len(ends):
      raise UserError(f'the text {call.record.document_id} has {len(ids)} tokens, and a call at '
                      f'position {position}: it was annotated with another tokenizer')
    begin = len(utf8[:ends[position]].decode('utf-8', 'ignore'))
    pieces += [text[at:begin], call]
    at = begin
  return [*pieces, text[at:]]


def _thresholds(folder: RunReader) -> dict[str, tuple[float, float]]:
  """Returns tau_f and max_texts by tool, from the configuration of a run.

  Raises:
    UserError: it is no annotation run.
  """
  try:
    return {name: (float(settings['tau_f']), float(settings.get('max_texts', math.inf)))
            for name, settings in folder.tool_settings().items()}
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f'{folder.path} is not the output folder of an annotation run: the tools in '
                    'its run.json have no threshold tau_f') from error


def _latest(stages: Sequence[list[Candidate]]) -> list[Candidate]:
  """Returns each call once, as recorded by the last of `stages` that has it."""
  found, seen = [], set()
  for calls in reversed(stages):
    found += [call for call in calls if _identity(call) not in seen]
    seen.update(map(_identity, calls))
  return found


def _identity(call: Candidate) -> tuple[str, int, str]:
  return call.document_id, call.position, call.argument


def _ordered(calls: Iterable[Candidate]) -> tuple[ShownCall, ...]:
  """Returns `calls` ordered by position and tool, and within a position as merging ranks them."""
  by_argument = sorted(calls, key=lambda call: call.argument, reverse=True)
  shown, seen = [], set()
  for call in sorted(by_argument, key=lambda call: (call.position, call.tool, -_rank(call))):
    place = call.position, call.tool
    is_best = place not in seen and _rank(call) > -math.inf
    shown.append(ShownCall(call, call.gain if isinstance(call, ScoredCall) else None, is_best))
    if is_best:
      seen.add(place)
  return tuple(shown)


def _rank(call: Candidate) -> float:
  """Returns the gain of `call`; -inf without losses, or if they are NaN."""
  gain = call.gain if isinstance(call, ScoredCall) else math.nan
  return -math.inf if math.isnan(gain) else gain


def _gains(tool: str, limits: tuple[float, float], texts: Iterable[Text]) -> ToolGains:
  calls, positions, best = [], [], []
  for text in texts:
    scored = [call for call in text.calls if call.gain is not None and call.record.tool == tool]
    calls += [call.gain for call in scored if not math.isnan(call.gain)]
    of_positions = [call.gain for call in scored if call.is_best]
    positions += of_positions
    best += [max(of_positions)] if of_positions else []
  return ToolGains(tool, *limits, *(tuple(sorted(gains)) for gains in (calls, positions, best)))
