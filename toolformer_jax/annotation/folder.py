"""The output folder of an annotation run: numbered chunks that are there whole or not at all.

    run.json                          the configuration, and the versions that made it
    documents/00000.jsonl             the texts, split
    calculator/sample/00000.jsonl     candidates of the texts in documents/00000.jsonl
    calculator/execute/00000.jsonl    ... with results
    calculator/filter/00000.jsonl     ... with losses
    merged/00000.jsonl                C*
    <stage>/00000.counts.json         what was counted while making a chunk
    <stage>/.COMPLETED                the stage has all of its chunks
"""

import fcntl
import json
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from toolformer_jax.annotation.records import Record, read_records, write_records
from toolformer_jax.errors import UserError

DOCUMENTS, MERGED = 'documents', 'merged'


def stage_name(tool: str, stage: str) -> str:
  """Returns the folder of one stage of one tool."""
  return f'{tool.lower()}/{stage}'


class RunFolder:
  """An output folder, locked against a second writer while it is open."""

  def __init__(self, path: pathlib.Path, configuration: dict[str, Any], versions: dict[str, str]):
    """Opens or creates the folder `path`.

    Args:
      path: the folder.
      configuration: everything that the results depend on, as JSON; a folder that was made with
        another one is refused.
      versions: of the software, recorded and not compared.

    Raises:
      UserError: the folder has another configuration or another writer, or is no folder.
    """
    self.path = path
    try:
      path.mkdir(parents=True, exist_ok=True)
      self._lock = open(path / '.lock', 'w')  # noqa: SIM115 - held while the folder is open
    except OSError as error:
      raise UserError(f'can not write to the output folder {path}: {error.strerror}') from error
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise UserError(f'another process is writing to {path}; wait for it, '
                      'or choose another --output_dir') from error
    self._check(json.loads(json.dumps(configuration)), versions)

  def _check(self, configuration: dict[str, Any], versions: dict[str, str]) -> None:
    file = self.path / 'run.json'
    if not file.exists():
      _write_json(file, {'configuration': configuration, 'versions': versions})
      return
    try:
      made_with = json.loads(file.read_text('utf-8'))['configuration']
    except (ValueError, KeyError, TypeError) as error:
      raise UserError(f'{file} is broken; choose another --output_dir') from error
    old, new = _flat(made_with), _flat(configuration)
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
      shown = ', '.join(f'{key} ({old.get(key)!r} then, {new.get(key)!r} now)' for key in differing)
      raise UserError(f'{self.path} was made with another configuration: {shown}; '
                      'choose another --output_dir, or the old settings')

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._lock.close()

  def has(self, stage: str, chunk: int) -> bool:
    """Tells whether a chunk is done."""
    return self._chunk(stage, chunk).exists()

  def chunks(self, stage: str) -> list[int]:
    """Returns the numbers of the chunks that are done."""
    return sorted(int(file.stem) for file in (self.path / stage).glob('[0-9]*.jsonl'))

  def read(self, stage: str, chunk: int, kind: type[Record]) -> list[Record]:
    """Returns the records of a chunk."""
    return list(read_records(self._chunk(stage, chunk), kind))

  def read_all(self, stage: str, kind: type[Record]) -> Iterator[Record]:
    """Yields the records of all chunks of a stage."""
    for chunk in self.chunks(stage):
      yield from read_records(self._chunk(stage, chunk), kind)

  def write(self, stage: str, chunk: int, records: Iterable[Record], counts: Counter) -> None:
    """Writes a chunk; it counts as done from the moment that its records have their name."""
    file = self._chunk(stage, chunk)
    file.parent.mkdir(parents=True, exist_ok=True)
    _write_json(file.with_suffix('.counts.json'), dict(sorted(counts.items())))
    write_records(file, records)

  def counts(self, stage: str) -> Counter:
    """Returns the sum of what was counted in the chunks of a stage that are done."""
    total = Counter()
    for chunk in self.chunks(stage):
      file = self._chunk(stage, chunk).with_suffix('.counts.json')
      total.update(json.loads(file.read_text('utf-8')))
    return total

  def is_complete(self, stage: str) -> bool:
    """Tells whether the stage has all of its chunks."""
    return (self.path / stage / '.COMPLETED').exists()

  def complete(self, stage: str) -> None:
    """Marks the stage as having all of its chunks."""
    (self.path / stage).mkdir(parents=True, exist_ok=True)
    (self.path / stage / '.COMPLETED').touch()

  def _chunk(self, stage: str, chunk: int) -> pathlib.Path:
    return self.path / stage / f'{chunk:05}.jsonl'


def _write_json(file: pathlib.Path, value: Any) -> None:
  temporary = file.with_name(file.name + '.tmp')
  temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + '\n', 'utf-8')
  os.replace(temporary, file)


def _flat(value: Any, name: str = '') -> dict[str, Any]:
  """Returns nested JSON objects as one level of dotted names."""
  if not isinstance(value, dict):
    return {name: value}
  flat = {}
  for key, inner in value.items():
    flat |= _flat(inner, f'{name}.{key}' if name else key)
  return flat
