"""The output folder of an annotation run: numbered chunks that are there whole or not at all.

    run.json, config.gin              the configuration, and the versions that made it
    tokenizer.json                    ... and tokenizer_ids.json: where in a text a call stands
    documents/00000.jsonl             the texts, split
    calculator/sample/00000.jsonl     candidates of the texts in documents/00000.jsonl
    calculator/execute/00000.jsonl    ... with results
    calculator/filter/00000.jsonl     ... with losses
    merged/00000.jsonl                C*
    <stage>/00000.counts.json         what was counted while making a chunk
    <stage>/.COMPLETED                the stage has all of its chunks
    report.md                         what came of it, with the calls that help most
    times.log                         how long each chunk took; all else is the same in every run
"""

import json
import os
import pathlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from toolformer_jax.data.records import Record, read_records, write_records
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import LockedFolder, read_json, write_json

DOCUMENTS, MERGED = 'documents', 'merged'
_CHUNK = re.compile(r'\d{5,}\.jsonl', re.ASCII)


def stage_name(tool: str, stage: str) -> str:
  """Returns the folder of one stage of one tool."""
  return f'{tool.lower()}/{stage}'


class RunReader:
  """Reads the folder of an annotation run, without its lock: the run may still be writing.

  A chunk is complete from the moment that it has its name, so that whatever is there is right.

  Attributes:
    path: the folder.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path

  def tool_settings(self) -> dict[str, dict[str, Any]]:
    """Returns the settings of each tool, by name, with which the run was started.

    Raises:
      UserError: the folder is not that of an annotation run.
    """
    try:
      tools = json.loads((self.path / 'run.json').read_text('utf-8'))['configuration']['tools']
      return {name: dict(settings) for name, settings in tools.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(f'{self.path} is not the output folder of an annotation run: its run.json is '
                      'missing, or names no tools') from error

  def chunk_times(self, stage: str) -> dict[int, int]:
    """Returns the finished chunks of a stage: their numbers, and when each was written, in ns.

    Raises:
      UserError: the folder of the stage cannot be read.
    """
    folder = self.path / stage
    try:
      with os.scandir(folder) as entries:
        return {int(entry.name.removesuffix('.jsonl')): entry.stat().st_mtime_ns
                for entry in entries if _CHUNK.fullmatch(entry.name)}
    except FileNotFoundError:  # the stage has not begun
      return {}
    except OSError as error:
      raise UserError(f'cannot read {folder}: {error.strerror}') from error

  def chunks(self, stage: str) -> list[int]:
    """Returns the numbers of the finished chunks of a stage, in ascending order."""
    return sorted(self.chunk_times(stage))

  def has(self, stage: str, chunk: int) -> bool:
    """Tells whether a chunk is finished."""
    return self.chunk_file(stage, chunk).exists()

  def is_complete(self, stage: str) -> bool:
    """Tells whether the stage has all of its chunks."""
    return (self.path / stage / '.COMPLETED').exists()

  def read(self, stage: str, chunk: int, kind: type[Record]) -> list[Record]:
    """Returns the records of a chunk.

    Raises:
      UserError: the file is missing or broken.
    """
    try:
      return list(read_records(self.chunk_file(stage, chunk), kind))
    except UserError as error:
      raise self._broken(stage, error) from error

  def read_all(self, stage: str, kind: type[Record]) -> Iterator[Record]:
    """Yields the records of all finished chunks of a stage.

    Raises:
      UserError: a file is missing or broken.
    """
    chunks = self.chunks(stage)
    missing = {*self.chunks(DOCUMENTS)} - {*chunks} if self.is_complete(stage) else set()
    if missing:
      raise self._broken(stage, f'{self.chunk_file(stage, min(missing))} is missing')
    for chunk in chunks:
      yield from self.read(stage, chunk, kind)

  def counts(self, stage: str, chunks: Iterable[int] | None = None) -> Counter[str]:
    """Returns the sum of the counts of `chunks`, by default of all finished chunks.

    Raises:
      UserError: a file with counts is missing or broken.
    """
    total = Counter()
    for chunk in self.chunks(stage) if chunks is None else chunks:
      file = self.chunk_file(stage, chunk).with_suffix('.counts.json')
      try:
        counts = read_json(file)
      except UserError as error:
        raise self._broken(stage, error) from error
      if not all(type(count) is int for count in counts.values()):
        raise self._broken(stage, f'{file} holds something else than counts')
      total.update(counts)
    return total

  def _broken(self, stage: str, problem: object) -> UserError:
    """Returns the error for a file of a stage that is missing or broken."""
    return UserError(f'{problem}; remove the folder {self.path / stage}, and the same annotate '
                     'command computes it again')

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

  def chunk_file(self, stage: str, chunk: int) -> pathlib.Path:
    """Returns the path of a chunk, finished or not."""
    return self.path / stage / f'{chunk:05}.jsonl'


class RunFolder(LockedFolder, RunReader):
  """The folder of an annotation run, to write; shard i of n has the chunks i modulo n."""

  def own_chunks(self) -> list[int]:
    """Returns the numbers of the chunks of texts that belong to this process's shard."""
    return [chunk for chunk in self.chunks(DOCUMENTS) if self.shard.has(chunk)]

  def has_own(self, stage: str) -> bool:
    """Tells whether the stage has all chunks of this process's shard."""
    return self.is_complete(DOCUMENTS) and set(self.own_chunks()) <= set(self.chunks(stage))

  def write(self, stage: str, chunk: int, records: Iterable[Record], counts: Counter) -> None:
    """Writes a chunk; it counts as finished from the moment that its records have their name.

    Raises:
      UserError: it cannot be written, for instance because the disk is full.
    """
    file = self.chunk_file(stage, chunk)
    try:
      file.parent.mkdir(parents=True, exist_ok=True)
      write_json(file.with_suffix('.counts.json'), dict(sorted(counts.items())))
      write_records(file, records)
    except OSError as error:
      raise UserError(f'cannot write {file}: {error.strerror}; the same command continues from '
                      'here when it can be written') from error

  def complete(self, stage: str) -> None:
    """Marks the stage as having all of its chunks."""
    (self.path / stage).mkdir(parents=True, exist_ok=True)
    (self.path / stage / '.COMPLETED').touch()

  def complete_if_whole(self, stage: str) -> None:
    """Marks the stage, if this was the last shard to do its chunks."""
    if self.chunks(stage) == self.chunks(DOCUMENTS):
      self.complete(stage)

  def log_time(self, stage: str, chunk: int, seconds: float) -> None:
    """Appends to times.log how long a chunk took."""
    line = json.dumps({'stage': stage, 'chunk': chunk, 'seconds': round(seconds, 3)})
    with open(self.path / 'times.log', 'a', encoding='utf-8') as file:
      file.write(line + '\n')


def _parse_time(line: str) -> tuple[tuple[str, int], float] | None:
  """Returns ((stage, chunk), seconds) of a line of times.log.

  Returns None for a line that is not whole: its process was killed while it wrote it.
  """
  try:
    entry = json.loads(line)
    return (str(entry['stage']), int(entry['chunk'])), float(entry['seconds'])
  except (ValueError, KeyError, TypeError):
    return None
