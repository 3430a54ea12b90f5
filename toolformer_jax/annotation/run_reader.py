"""Reads the output folder of an annotation run, whose files `run_dir` describes."""

import dataclasses
import functools
import itertools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from toolformer_jax.annotation.checked_files import ChunkInfo
from toolformer_jax.annotation.run_settings import RunSettings
from toolformer_jax.annotation.stage_keys import DOCUMENTS, MERGED, stage_name
from toolformer_jax.annotation.stage_records import StageRecords
from toolformer_jax.data.media_files import check_inside
from toolformer_jax.data.records import (
  AnnotatedDocument,
  Candidate,
  Document,
  ExecutedCall,
  Record,
  ScoredCall,
  SelectedText,
  parse_records,
)
from toolformer_jax.errors import ToolError, UserError
from toolformer_jax.runtime.paths import as_path, file_stamps, glob, reason
from toolformer_jax.tokenizer import Tokenizer

# The records of the stages of a tool that have calls.
CALL_RECORDS: dict[str, type[Candidate]] = {
  'sample': Candidate, 'execute': ExecutedCall, 'filter': ScoredCall}
MEDIA_FOLDER = 'media_folder'  # the file that names the folder of the corpus, if it has media
_CHUNK = re.compile(r'\d{5,}\.jsonl', re.ASCII)


class RunReader:
  """Reads the folder of an annotation run, without a lock: the run may still be in progress.

  A chunk gets its name when it is whole, so that every chunk that exists can be used. Of each stage
  it reads the chunks that belong to the current settings of the run, those of its last start.

  Attributes:
    path: the folder.
  """

  def __init__(self, path: epath.Path):
    self.path = path

  @functools.cached_property
  def settings(self) -> RunSettings | None:
    """The settings of the run; None without a run.json.

    Raises:
      UserError: run.json is broken, or of an earlier version.
    """
    return RunSettings.read(self.path)

  def folder(self, stage: str) -> epath.Path:
    """Returns the folder of a stage."""
    folders = self.settings.folders if self.settings else {}
    return self.path / folders.get(stage, stage)

  def tool_settings(self) -> dict[str, dict[str, Any]]:
    """Returns the settings of each tool with which the run was started, by the tool's name.

    Raises:
      UserError: the folder is not that of an annotation run.
    """
    if self.settings is None:
      raise UserError(f'{self.path} is not the output folder of an annotation run: it has no '
                      'run.json')
    return {name: dict(settings) for name, settings in self.settings.tools.items()}

  def tokenizer(self) -> Tokenizer:
    """Returns the tokenizer of the run's model.

    Raises:
      UserError: the folder has none, or it is not that of the run.
    """
    remedy = 'run the same annotate command again to write it'
    if not (self.path / 'tokenizer.json').exists():
      raise UserError(f'{self.path} has no tokenizer.json, which is needed to find the positions '
                      f'of calls; {remedy}')
    tokenizer = Tokenizer.load(self.path)
    expected = self.settings and self.settings.fixed.get('tokenizer')
    if expected and tokenizer.fingerprint != expected:
      raise UserError(f"{self.path / 'tokenizer.json'} is not the tokenizer of the run; {remedy}")
    return tokenizer

  def documents(self) -> StageRecords[Document]:
    """Returns the texts of the run."""
    return StageRecords(self, DOCUMENTS, Document)

  def calls(self, tool: str, stage: str) -> StageRecords:
    """Returns the calls to a tool after one of the stages 'sample', 'execute' and 'filter'.

    They are Candidates, ExecutedCalls or ScoredCalls.
    """
    return StageRecords(self, stage_name(tool, stage), CALL_RECORDS[stage])

  def annotated(self) -> StageRecords[AnnotatedDocument]:
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
      return [self._with_folder(record) for record in parse_records(data, kind, file)]
    except OSError as error:
      raise self.broken(stage, f'cannot read {file}: {reason(error)}') from error
    except UserError as error:
      raise self.broken(stage, error) from error

  def _with_folder(self, record: Any) -> Any:
    """Returns a record whose media, if it has any, are found in the folder of the corpus."""
    if isinstance(record, AnnotatedDocument):
      return dataclasses.replace(record, document=self._with_folder(record.document))
    if not isinstance(record, Document) or not record.media:
      return record
    folder = self.media_folder
    try:
      media = tuple(dataclasses.replace(medium, folder=folder) for medium in record.media
                    if not folder or check_inside(medium.path, as_path(folder)))
    except ToolError as error:
      raise UserError(f'the text {record.id!r}: {error}') from error
    return dataclasses.replace(record, media=media)

  @property
  def has_media(self) -> bool:
    """Whether a text of the run has pictures, sounds or videos."""
    return (self.path / MEDIA_FOLDER).exists()

  @functools.cached_property
  def media_folder(self) -> str:
    """The folder of the corpus, to which the paths of media are relative; '' if they are not."""
    return (self.path / MEDIA_FOLDER).read_text('utf-8').strip() if self.has_media else ''

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

  def selected(self, tool: str, chunk: int) -> list[Document]:
    """Returns the texts of a chunk of a tool's stages: those that its heuristic selects.

    Raises:
      UserError: a file is missing or broken.
    """
    stage, found = stage_name(tool, 'select'), []
    for text in self.read(stage, chunk, SelectedText):
      if not text.index < len(self._texts) or self._texts[text.index].id != text.document_id:
        raise self.broken(stage, f'{self.chunk_file(stage, chunk)} does not fit the texts of '
                                 f'{self.folder(DOCUMENTS)}')
      found.append(self._texts[text.index])
    return found

  @functools.cached_property
  def _texts(self) -> StageRecords[Document]:
    """All texts, once they are complete."""
    return self.documents()

  def read_calls(self, tool: str, stage: str, chunk: int) -> list[Candidate]:
    """Returns the calls to a tool in a chunk after a stage, see `calls`.

    Args:
      tool: the tool's name.
      stage: 'sample', 'execute' or 'filter'.
      chunk: number of the chunk.

    Raises:
      UserError: a file is missing or broken, or one of the calls is to another tool or in none of
        the chunk's texts.
    """
    name, select = stage_name(tool, stage), stage_name(tool, 'select')
    calls = self.read(name, chunk, CALL_RECORDS[stage])
    known = {text.document_id for text in self.read(select, chunk, SelectedText)}
    for call in calls:
      if call.document_id not in known or call.tool != tool:
        raise UserError(f'{self.chunk_file(name, chunk)} has a call to {call.tool} in the text '
                        f'{call.document_id!r}; the file must only have calls to {tool} in the '
                        f'texts of {self.chunk_file(select, chunk)}')
    if calls and not self.counts_file(name, chunk).exists():
      self._check_positions(self.chunk_file(name, chunk), calls, {
          document.id: document.text for document in self.selected(tool, chunk)})
    return calls

  def calls_by_text(self, tool: str, stage: str) -> Iterator[tuple[int, list[Candidate]]]:
    """Yields the calls to a tool in each text that has some, in the order of the texts.

    With each come the index of its text among all texts.
    """
    for chunk in self.all_chunks(stage_name(tool, stage)):
      by_text = defaultdict(list)
      for call in self.read_calls(tool, stage, chunk):
        by_text[call.document_id].append(call)
      for text in self.read(stage_name(tool, 'select'), chunk, SelectedText):
        if text.document_id in by_text:
          yield text.index, by_text[text.document_id]

  def _check_positions(self, file: epath.Path, calls: Iterable[Candidate],
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
    total: Counter[str] = Counter()
    for chunk in self.all_chunks(stage) if chunks is None else chunks:
      try:
        total.update(ChunkInfo.read(self.counts_file(stage, chunk)).counts)
      except UserError as error:
        raise self.broken(stage, error) from error
    return total

  def seconds(self) -> dict[str, float]:
    """Returns the seconds that each stage took; of a chunk that was computed twice, the last time.

    Only stages with the current settings are among them.

    Raises:
      UserError: times.log cannot be read.
    """
    file = self.path / 'times.log'
    try:
      lines = [line for log in glob(self.path, 'times*.log')
               for line in log.read_bytes().decode('utf-8', 'replace').splitlines()]
    except OSError as error:
      raise UserError(f'cannot read {file}: {reason(error)}; it may be removed') from error
    chunks = dict(filter(None, map(_parse_time, lines)))
    total: defaultdict[str, float] = defaultdict(float)
    for (folder, _), seconds in chunks.items():
      total[folder] += seconds
    folders = self.settings.folders if self.settings else {}
    return {stage: total[folder] for stage, folder in folders.items() if folder in total}

  def chunk_times(self, stage: str) -> dict[int, int]:
    """Returns when each finished chunk of a stage was written, by the chunk's number.

    In which unit depends on the storage; a chunk that is written again has another number.

    Raises:
      UserError: the folder of the stage cannot be read.
    """
    folder = self.folder(stage)
    try:
      return {int(name.removesuffix('.jsonl')): stamp
              for name, stamp in file_stamps(folder).items() if _CHUNK.fullmatch(name)}
    except OSError as error:
      raise UserError(f'cannot read {folder}: {reason(error)}') from error

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
    marker = self.folder(stage) / '.COMPLETED'
    try:
      return int(marker.read_bytes()) if marker.exists() else None
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

  def chunk_file(self, stage: str, chunk: int) -> epath.Path:
    """Returns the path of a chunk, finished or not."""
    return self.folder(stage) / f'{chunk:05}.jsonl'

  def counts_file(self, stage: str, chunk: int) -> epath.Path:
    """Returns the path of the file with the counts and the checksum of a chunk."""
    return self.chunk_file(stage, chunk).with_suffix('.counts.json')

  def broken(self, stage: str, problem: object) -> UserError:
    """Returns the error for a file of a stage that is missing or broken."""
    return UserError(f'{problem}; remove the folder {self.folder(stage)}, and the same annotate '
                     'command computes it again')


def _parse_time(line: str) -> tuple[tuple[str, int], float] | None:
  """Returns ((folder of the stage, chunk), seconds) of a line of times.log.

  Returns None for any other line: a process that is killed may leave an incomplete one.
  """
  try:
    entry = json.loads(line)
    at, seconds = (str(entry['folder']), int(entry['chunk'])), float(entry['seconds'])
    return (at, seconds) if math.isfinite(seconds) else None
  except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
    return None
