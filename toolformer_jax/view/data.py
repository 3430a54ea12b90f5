"""The content of the pages: the texts of a run with their calls.

The run may still be in progress; only its finished chunks are shown.
"""

import functools
import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from etils import epath

from toolformer_jax.annotation.early_rejection import (
  MIN_LOSS_NO_CALL,
  REJECTED_POSITIONS,
  REJECTING_TEXTS,
)
from toolformer_jax.annotation.run_reader import CALL_RECORDS, RunReader
from toolformer_jax.annotation.stage_keys import DOCUMENTS, MERGED, stage_name
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.data.records import Candidate, Document, ExecutedCall, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_absolute_path
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.view.gains import Rejected, ToolGains, tool_gains

KEPT, REJECTED, UNKNOWN, FAILED, PENDING = STATES = (
    'kept', 'rejected', 'unknown', 'failed', 'pending')
STATE_NAMES = {KEPT: 'kept', REJECTED: 'rejected', UNKNOWN: 'gain not known', FAILED: 'no result',
               PENDING: 'not scored yet'}


@dataclass(frozen=True)
class ShownCall:
  """A call, as recorded by the last stage that has processed it.

  Attributes:
    record: the record of that stage.
    gain: in nats; None if it is not known.
    bound: the highest value that the gain can have, if the call was rejected early and no more is
      known; else None.
    is_best: whether its gain is the highest known one of all calls to its tool at its position, so
      that merging may keep it.
  """

  record: Candidate
  gain: float | None
  bound: float | None
  is_best: bool

  @property
  def result(self) -> str | None:
    """The result of the call; None if it has none yet."""
    return self.record.result if isinstance(self.record, ExecutedCall) else None

  @property
  def text(self) -> str:
    """The call and its result, as in `[Calculator(1 + 2) → 3]`."""
    result = '' if self.result is None else f' → {self.result}'
    return f'[{self.record.tool}({self.record.argument}){result}]'

  def state(self, tau_f: float) -> str:
    """Returns the state of the call, one of STATES, at the threshold `tau_f`."""
    if self.gain is not None:
      return KEPT if self.is_best and self.gain >= tau_f else REJECTED
    if self.bound is not None:
      return UNKNOWN if self.bound >= tau_f else REJECTED
    return PENDING if self._failure is None else FAILED

  @property
  def _failure(self) -> str | None:
    return self.record.failure if isinstance(self.record, ExecutedCall) else None

  def verdict(self, tau_f: float) -> str:
    """Returns the state of the call in words, with the reason where it is known."""
    state = self.state(tau_f)
    if state == FAILED:
      return f'no result: {self._failure}'
    if state == PENDING and not isinstance(self.record, ExecutedCall):
      return 'not executed yet'
    if state == REJECTED and self.gain is not None and self.gain >= tau_f:
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
class Run:
  """The content of a run's folder at one time."""

  name: str
  tools: tuple[ToolGains, ...]
  stages: tuple[Stage, ...]
  texts: tuple[Text, ...]
  tokenizer: Tokenizer


class LiveRun:
  """Reads a run's folder repeatedly; a chunk is read again only if its file has changed."""

  def __init__(self, path: epath.Path):
    """Opens the folder `path`.

    Raises:
      UserError: it is not the output folder of an annotation run, or has no tokenizer.
    """
    self._path = path
    _thresholds(RunReader(path))
    self._tokenizer = RunReader(path).tokenizer()
    self._lock = threading.Lock()
    self._seen: object = None
    self._records: dict[tuple[str, int], tuple[int, list]] = {}
    self._run: Run | None = None

  @property
  def syntax(self) -> CallSyntax:
    """How the run writes calls."""
    settings = RunReader(self._path).settings
    return CallSyntax(**settings.fixed.get('syntax', {})) if settings else DEFAULT_SYNTAX

  def check_tokenizer(self, tokenizer: Tokenizer) -> None:
    """Checks that the positions of calls count the tokens of `tokenizer`.

    Raises:
      UserError: they count those of another one.
    """
    if tokenizer.fingerprint != self._tokenizer.fingerprint:
      raise UserError(f'{self._path} was annotated with another tokenizer; give the model of the '
                      'run as --checkpoint')

  def check_model(self, fingerprint: str) -> None:
    """Checks that a model is the one that annotated the run, by the hash of its checkpoint.

    Raises:
      UserError: it is another one, whose losses do not tell why the run keeps a call.
    """
    settings = RunReader(self._path).settings
    expected = settings.fixed.get('checkpoint') if settings else None
    if expected and fingerprint != expected:
      raise UserError(f'{self._path} was annotated by another model; give the model of the run as '
                      '--checkpoint')

  def read(self) -> Run:
    """Returns the current content of the folder.

    Raises:
      UserError: a file is broken, or missing in a stage that is complete.
    """
    with self._lock:  # another request waits, and then uses the chunks that were read
      folder = RunReader(self._path)  # the run may have been started again with other settings
      tools = _thresholds(folder)
      names = [stage_name(tool, stage) for tool in tools for stage in CALL_RECORDS]
      # Before the chunks are listed, so that all chunks of a complete stage are among them.
      complete = {name: folder.is_complete(name) for name in (DOCUMENTS, *names, MERGED)}
      for name in complete:
        folder.all_chunks(name)
      times = {name: folder.chunk_times(name) for name in complete}
      seen = (folder.settings, complete, times)
      if self._run is None or seen != self._seen:
        self._run = self._assemble(folder, tools, complete, times)
        self._seen = seen
      return self._run

  def _assemble(self, folder: RunReader, tools: dict[str, tuple[float, float]],
                complete: dict[str, bool], times: dict[str, dict[int, int]]) -> Run:
    documents = self._read_all(
        folder, DOCUMENTS, times, lambda chunk: folder.read(DOCUMENTS, chunk, Document))
    calls: dict[str, list[Candidate]] = {document.id: [] for document in documents}
    for tool in tools:
      stages = [self._read_all(folder, stage_name(tool, stage), times,
                               functools.partial(folder.read_calls, tool, stage))
                for stage in CALL_RECORDS]
      for call in _latest(stages):
        if call.document_id in calls:  # else the text is missing: the run may still be reading
          calls[call.document_id].append(call)
    texts = tuple(Text(document, _ordered(calls[document.id])) for document in documents)
    gains = (tool_gains(tool, limits, texts, self._rejected(folder, tool, times))
             for tool, limits in tools.items())
    return Run(as_absolute_path(folder.path).name, tuple(gains),
               tuple(Stage(name, len(times[name]), complete[name]) for name in complete),
               texts, self._tokenizer)

  def _rejected(self, folder: RunReader, tool: str, times: dict[str, dict[int, int]]
                ) -> Rejected:
    """Returns the positions that were rejected early."""
    stage, least = stage_name(tool, 'sample'), folder.tool_settings()[tool].get(MIN_LOSS_NO_CALL)
    if least is None:
      return Rejected()
    def counts(chunk: int) -> list[Counter[str]]:
      written = folder.counts_file(stage, chunk).exists()  # else somebody else made the chunk
      return [folder.counts(stage, [chunk])] if written else []
    every = self._read_all(folder, stage, times, counts, 'counts')
    positions, of_texts = (sum(one[name] for one in every)
                           for name in (REJECTED_POSITIONS, REJECTING_TEXTS))
    return Rejected(positions, of_texts, float(least))

  def _read_all(self, folder: RunReader, stage: str, times: dict[str, dict[int, int]],
                read: Callable[[int], list], what: str = 'records') -> list:
    """Returns what `read` returns for the chunks of a stage, by default their records.

    Only chunks that have changed are read. `what` names the kind of content.
    """
    records = []
    for chunk, time in sorted(times[stage].items()):
      key = f'{folder.folder(stage)} {what}', chunk
      if self._records.get(key, (None,))[0] != time:
        self._records[key] = time, read(chunk)
      records += self._records[key][1]
    return records


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
  pieces: list[str | ShownCall] = []
  at = 0
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
  found: list[Candidate] = []
  seen: set[tuple[str, int, str]] = set()
  for calls in reversed(stages):
    found += [call for call in calls if _identity(call) not in seen]
    seen.update(map(_identity, calls))
  return found


def _identity(call: Candidate) -> tuple[str, int, str]:
  return call.document_id, call.position, call.argument


def _ordered(calls: Iterable[Candidate]) -> tuple[ShownCall, ...]:
  """Returns `calls` ordered by position and tool, and within a position as merging ranks them.

  Those whose gain is only bounded come after those with a known one, and before those without.
  """
  def rank(call: Candidate) -> tuple[int, float]:
    gain, bound = _known(call)
    return (0, -gain) if gain is not None else (1, -bound) if bound is not None else (2, 0.0)
  by_argument = sorted(calls, key=lambda call: call.argument, reverse=True)
  shown, seen = [], set()
  for call in sorted(by_argument, key=lambda call: (call.position, call.tool, rank(call))):
    (gain, bound), place = _known(call), (call.position, call.tool)
    is_best = place not in seen and gain is not None
    shown.append(ShownCall(call, gain, bound, is_best))
    if is_best:
      seen.add(place)
  return tuple(shown)


def _known(call: Candidate) -> tuple[float | None, float | None]:
  """Returns the gain of a call, and its upper bound if the gain is not known; else None."""
  if not isinstance(call, ScoredCall):
    return None, None
  return (None, call.gain) if call.loss_call is None else (call.gain, None)
