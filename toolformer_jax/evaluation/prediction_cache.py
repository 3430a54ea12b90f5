"""The records of one arm on one task, in numbered files; each is complete or absent.

    work/svamp/toolformer/run.json        what the records depend on
    work/svamp/toolformer/00000.jsonl     records that were computed together
    .../00000.1-of-4.jsonl                ... by the second of four processes
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from etils import epath

from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.predict import Prediction, TextLogprob
from toolformer_jax.runtime.paths import atomic_writer, glob, reason
from toolformer_jax.runtime.run_dir import LockedFolder

Record = Prediction | TextLogprob


class PredictionCache(LockedFolder):
  """The folder of one arm on one task: the records that it holds are not computed again."""

  def records(self, record_type: type[Record]) -> dict[str, Record]:
    """Returns all records by id.

    Raises:
      UserError: a file is broken.
    """
    records = {}
    for path in self._files():
      for number, fields in read_objects(path):
        try:
          record = _from_json(record_type, fields)
        except TypeError as error:
          raise UserError(f'{path}:{number}: no record of an evaluation ({error})') from error
        records[record.id] = record
    return records

  def add(self, records: Iterable[Record]) -> None:
    """Writes records to a new file.

    Raises:
      UserError: it cannot be written, for instance because the disk is full.
    """
    of_shard = f'.{self.shard.index}-of-{self.shard.count}' if self.shard.count > 1 else ''
    number = max((int(path.name.split('.')[0]) + 1 for path in self._files()), default=0)
    path = self.path / f'{number:05}{of_shard}.jsonl'
    try:
      write_lines(path, map(dataclasses.asdict, records))
    except OSError as error:
      raise UserError(f'cannot write {path}: {reason(error)}; after that is fixed, the same '
                      'command continues from here') from error

  def _files(self) -> list[epath.Path]:
    return glob(self.path, '[0-9]*.jsonl')


def _from_json(record_type: type[Record], fields: dict[str, Any]) -> Record:
  tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
  return record_type(**{**fields, **tuples})


def write_lines(path: epath.Path, records: Iterable[dict[str, Any]]) -> None:
  """Writes JSON Lines; the file is complete or absent."""
  with atomic_writer(path) as file:
    for record in records:
      file.write(json.dumps(record, ensure_ascii=False) + '\n')
