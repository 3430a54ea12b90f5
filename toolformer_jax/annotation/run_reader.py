"""Reads the output folder of an annotation run, whose files `run_dir` describes."""

import bisect
import functools
import itertools
import json
import math
import pathlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, overload

from toolformer_jax.annotation.checked_files import ChunkInfo, read_checked_json
from toolformer_jax.data.records import (
  AnnotatedDocument,
  Candidate,
  Document,
  ExecutedCall,
  Record,
  ScoredCall,
  parse_records,
)
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

DOCUMENTS, MERGED = 'documents', 'merged'
# The records of the stages that each tool has.
CALL_RECORDS = {'sample': Candidate, 'execute': ExecutedCall, 'filter': ScoredCall}
_CHUNK = re.compile(r'\d{5,}\.jsonl', re.ASCII)


def stage_name(tool: str, stage: str) -> str:
  """Returns the folder of a stage of one tool, relative to the run's folder."""
  return f'{tool.lower()}/{stage}'


class RunReader:
  """Reads the folder of an annotation run, without a lock: the run may still be in progress.

  A chunk gets its name when it is whole, so that every chunk that exists can be used.

  Attributes:
    path: the folder.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path

  def tool_settings(self) -> dict[str, dict[str, Any]]:
    """Returns the settings of each tool with which the run was started, by the tool's name.

    Raises:
      UserError: the folder is not that of an annotation run.
    """
    try:
      tools = json.loads((self.path / 'run.json').read_text('utf-8'))['configuration']['tools']
      return {name: dict(settings) for name, settings in tools.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(f'{self.path} is not the output folder of an annotation run: its run.json is '
                      'missing, or names no tools') from error

  def tokenizer(self) -> Tokenizer:
    """Returns the tokenizer of the run's model.

    Raises:
      UserError: the folder has none, or it is broken.
    """
    if not (self.path / 'tokenizer.json').exists():
      raise UserError(f'{self.path} has no tokenizer.json, which is needed to find the positions '
                      'of calls; run the same annotate command again to add it')
    return Tokenizer.load(self.path)

  def documents(self) -> 'StageRecords[Document]':
    """Returns the texts of the run."""
    return StageRecords(self, DOCUMENTS, Document)

  def calls(self, tool: str, stage: str) -> 'StageRecords':
    """Returns the calls to a tool after one of the stages 'sample', 'execute' and 'filter'.

    They are Candidates, ExecutedCalls or ScoredCalls.
    """
    return StageRecords(self, stage_name(tool, stage), CALL_RECORDS[stage])

  def annotated(self) -> 'StageRecords[AnnotatedDocument]':
    """Returns the texts that keep a call: C*."""
    return StageRecords(self, MERGED, AnnotatedDocument)

  def read(self, stage: str, chunk: int, kind: type[Record]) -> list[Record]:
    """Returns the records of a chunk.

    A file of records that has a counts file must be as it was written. One without was made by
    somebody else, and only its records are checked.

    Raises:
      UserError: the file is missing or broken.
    """
    file = self.chunk_file(stage, chunk)
    try:
      data = file.read_bytes()
      if info := self._info(stage, chunk):
        info.check(file, data)
      return list(parse_records(data, kind, file))
    except OSError as error:
      raise self.broken(stage, f'cannot read {file}: {error.strerror}') from error
    except UserError as error:
      raise self.broken(stage, error) from error

  def size(self, stage: str, chunk: int, kind: type[Record]) -> int:
    """Returns the number of records of a chunk.

    Raises:
      UserError: the file with its counts is broken; without one, see `read`.
    """
    try:
      info = self._info(stage, chunk)
    except UserError as error:
      raise self.broken(stage, error) from error
    return len(self.read(stage, chunk, kind)) if info is None else info.records

  def _info(self, stage: str, chunk: int) -> ChunkInfo | None:
    """Returns the content of a chunk's counts file; None if it has none."""
    file = self.counts_file(stage, chunk)
    return ChunkInfo.read(file) if file.exists() else None

  def read_calls(self, tool: str, stage: str, chunk: int,
                 documents: Iterable[Document]) -> list[Candidate]:
    """Returns the calls to a tool in a chunk after a stage, see `calls`.

    Args:
      tool: the tool's name.
      stage: 'sample', 'execute' or 'filter'.
      chunk: number of the chunk.
      documents: the texts of the chunk.

    Raises:
      UserError: the file is missing or broken, or one of the calls is to another tool or in none of
        `documents`.
    """
    name = stage_name(tool, stage)
    calls = self.read(name, chunk, CALL_RECORDS[stage])
    texts = {document.id: document.text for document in documents}
    for call in calls:
      if call.document_id not in texts or call.tool != tool:
        raise UserError(f'{self.chunk_file(name, chunk)} has a call to {call.tool} in the text '
                        f'{call.document_id!r}; the file must only have calls to {tool} in the '
                        f'texts of {self.chunk_file(DOCUMENTS, chunk)}')
    if not self.counts_file(name, chunk).exists():
      self._check_positions(self.chunk_file(name, chunk), calls, texts)
    return calls

  def _check_positions(self, file: pathlib.Path, calls: Iterable[Candidate],
                       texts: Mapping[str, str]) -> None:
    """Checks that the calls in a file that somebody else made are before tokens of their texts."""
    tokenizer = self.tokenizer()
    for document_id, of_text in itertools.groupby(calls, lambda call: call.document_id):
      # JSON can hold half a surrogate, which is no character.
      text = texts[document_id].encode('utf-8', 'replace').decode()
      size = len(tokenizer.encode(text))
      for call in of_text:
        if call.position >= size:
          raise UserError(f'{file} has a call at position {call.position} of the text '
                          f'{document_id!r}, which has {size} tokens; remove the call')

  def counts(self, stage: str, chunks: Iterable[int] | None = None) -> Counter[str]:
    """Returns the sum of the counts of `chunks`, by default of all finished chunks.

    Raises:
      UserError: a file with counts is missing or broken.
    """
    total = Counter()
    for chunk in self.all_chunks(stage) if chunks is None else chunks:
      try:
        total.update(ChunkInfo.read(self.counts_file(stage, chunk)).counts)
      except UserError as error:
        raise self.broken(stage, error) from error
    return total

  def seconds(self) -> dict[str, float]:
    """Returns the seconds that each stage took; of a chunk that was computed twice, the last time.

    Raises:
      UserError: times.log cannot be read.
    """
    file = self.path / 'times.log'
    try:
      lines = file.read_text('utf-8', errors='replace').splitlines()
    except FileNotFoundError:
      return {}
    except OSError as error:
      raise UserError(f'cannot read {file}: {error.strerror}; it may be removed') from error
    chunks = dict(filter(None, map(_parse_time, lines)))
    total = defaultdict(float)
    for (stage, _), seconds in chunks.items():
      total[stage] += seconds
    return dict(total)

  def chunk_times(self, stage: str) -> dict[int, int]:
    """Returns when each finished chunk of a stage was written, in ns, by the chunk's number.

    Raises:
      UserError: the folder of the stage cannot be read.
    """
    folder = self.path / stage
    try:
      return {int(file.name.removesuffix('.jsonl')): file.stat().st_mtime_ns
              for file in folder.iterdir() if _CHUNK.fullmatch(file.name)}
    except FileNotFoundError:  # the stage has not begun
      return {}
    except OSError as error:
      raise UserError(f'cannot read {folder}: {error.strerror}') from error

  def chunks(self, stage: str) -> list[int]:
    """Returns the numbers of the finished chunks of a stage, in ascending order."""
    return sorted(self.chunk_times(stage))

  def all_chunks(self, stage: str) -> list[int]:
    """Returns what `chunks` returns, after a check that a complete stage has all of its chunks.

    Raises:
      UserError: it has not, or has others.
    """
    size, found = self._completed_size(stage), self.chunks(stage)
    if size is not None and found != [*range(size)]:
      wrong = min({*range(size)} ^ {*found})
      raise self.broken(stage, f'{self.chunk_file(stage, wrong)} '
                        + ('is missing' if wrong < size else 'is not a file of the run'))
    return found

  def _completed_size(self, stage: str) -> int | None:
    """Returns the number of chunks of a stage; None if it is not complete.

    Raises:
      UserError: the marker of its completion is broken.
    """
    marker = self.path / stage / '.COMPLETED'
    try:
      return int(marker.read_text('utf-8')) if marker.exists() else None
    except (OSError, ValueError) as error:
      raise UserError(f'{marker} has no number of chunks; remove it, and the same annotate command '
                      'writes it again') from error

  def has(self, stage: str, chunk: int) -> bool:
    """Tells whether a chunk is finished."""
    return self.chunk_file(stage, chunk).exists()

  def is_complete(self, stage: str) -> bool:
    """Tells whether all chunks of a stage are finished.

    Raises:
      UserError: the marker of its completion is broken.
    """
    return self._completed_size(stage) is not None

  def chunk_file(self, stage: str, chunk: int) -> pathlib.Path:
    """Returns the path of a chunk, finished or not."""
    return self.path / stage / f'{chunk:05}.jsonl'

  def counts_file(self, stage: str, chunk: int) -> pathlib.Path:
    """Returns the path of the file with the counts and the checksum of a chunk."""
    return self.chunk_file(stage, chunk).with_suffix('.counts.json')

  def preselected_file(self, chunk: int) -> pathlib.Path:
    """Returns the path of the file that `preselected` reads."""
    return self.chunk_file(DOCUMENTS, chunk).with_suffix('.preselected.json')

  def preselected(self, tool: str, chunk: int, documents: Iterable[Document]) -> list[Document]:
    """Returns those of a chunk's documents that the tool's heuristic selects; all without one.

    Raises:
      UserError: the file is missing or broken.
    """
    file = self.preselected_file(chunk)
    try:
      by_tool = read_checked_json(file)
    except UserError as error:
      raise self.broken(DOCUMENTS, error) from error
    if not isinstance(by_tool.get(tool, []), list):
      raise self.broken(DOCUMENTS, f'{file} has no list of texts for {tool}')
    return [document for document in documents
            if tool not in by_tool or document.id in by_tool[tool]]

  def broken(self, stage: str, problem: object) -> UserError:
    """Returns the error for a file of a stage that is missing or broken."""
    return UserError(f'{problem}; remove the folder {self.path / stage}, and the same annotate '
                     'command computes it again')


class StageRecords(Sequence[Record], Generic[Record]):
  """The records of a stage, read from its files when they are used.

  One chunk is in memory at a time. Chunks that are finished later are not among them.
  """

  def __init__(self, run: RunReader, stage: str, kind: type[Record]):
    """Lists the finished chunks of `stage`, which hold records of `kind`.

    Raises:
      UserError: the stage is complete, but one of its files is missing.
    """
    self._run, self._stage, self._kind = run, stage, kind
    self._numbers = run.all_chunks(stage)
    self._last_read: tuple[int, list[Record]] = (-1, [])

  def chunks(self) -> Iterator[list[Record]]:
    """Yields the records of each chunk.

    Raises:
      UserError: a file is missing or broken.
    """
    return (self._run.read(self._stage, number, self._kind) for number in self._numbers)

  def __iter__(self) -> Iterator[Record]:
    return itertools.chain.from_iterable(self.chunks())

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  @overload
  def __getitem__(self, index: int) -> Record: ...

  @overload
  def __getitem__(self, index: slice) -> list[Record]: ...

  def __getitem__(self, index: int | slice) -> Record | list[Record]:
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    at = index + len(self) if index < 0 else index
    if not 0 <= at < len(self):
      raise IndexError(f'index {index} is out of range for {len(self)} records')
    place = bisect.bisect_right(self._ends, at)
    if self._last_read[0] != place:
      self._last_read = place, self._run.read(self._stage, self._numbers[place], self._kind)
    return self._last_read[1][at - self._ends[place]]  # counted from the end of the chunk

  @functools.cached_property
  def _ends(self) -> list[int]:
    """For each chunk, the number of records up to its end."""
    return list(itertools.accumulate(self._run.size(self._stage, number, self._kind)
                                     for number in self._numbers))

  def __repr__(self) -> str:
    return f'<{len(self)} {self._kind.__name__} records of {self._run.path / self._stage}>'


def _parse_time(line: str) -> tuple[tuple[str, int], float] | None:
  """Returns ((stage, chunk), seconds) of a line of times.log.

  Returns None for any other line: a process that is killed may leave an incomplete one.
  """
  try:
    entry = json.loads(line)
    seconds = float(entry['seconds'])
    return ((str(entry['stage']), int(entry['chunk'])), seconds) if math.isfinite(seconds) else None
  except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
    return None
