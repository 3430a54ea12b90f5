"""The records of one arm on one task: numbered files, each there whole or not at all.

    work/svamp/toolformer/run.json        what they depend on
    work/svamp/toolformer/00000.jsonl     records that were computed together
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.predict import Prediction, TextScore
from toolformer_jax.evaluation.task import Question, Text
from toolformer_jax.runtime.run_dir import LockedFolder, whole_file

Record = Prediction | TextScore


class PredictionCache(LockedFolder):
  """The folder of one arm on one task: predictions that it holds are not computed again."""

  def records(self, kind: type[Record]) -> dict[str, Record]:
    """Returns all records, by id."""
    found = {}
    for path in self._files():
      for line in path.read_text('utf-8').splitlines():
        record = _read(kind, json.loads(line))
        found[record.id] = record
    return found

  def add(self, records: Iterable[Record]) -> None:
    """Writes records into a file of their own.

    Raises:
      UserError: it cannot be written, for instance because the disk is full.
    """
    number = max((int(path.stem) + 1 for path in self._files()), default=0)
    path = self.path / f'{number:05}.jsonl'
    try:
      write_lines(path, map(dataclasses.asdict, records))
    except OSError as error:
      raise UserError(f'cannot write {path}: {error.strerror}; the same command continues from '
                      'here when that is mended') from error

  def _files(self) -> list[pathlib.Path]:
    return sorted(self.path.glob('[0-9]*.jsonl'))


def _read(kind: type[Record], fields: dict[str, Any]) -> Record:
  lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
  return kind(**{**fields, **lists})


def missing(items: Sequence[Question] | Sequence[Text],
            records: dict[str, Record]) -> list[Question] | list[Text]:
  """Returns the items without a record.

  Raises:
    UserError: the record of an id is of another question: the data have changed.
  """
  for item in items:
    record = records.get(item.id)
    if isinstance(record, Prediction) and (
        (record.prompt, record.answers) != (item.prompt, item.answers)):
      raise UserError(f'the question {item.id} is not the one in the output folder: the data have '
                      'changed; choose another --output_dir, or the old data')
  return [item for item in items if item.id not in records]


def write_lines(path: pathlib.Path, records: Iterable[dict[str, Any]]) -> None:
  """Writes JSON Lines; the file is there whole, or not at all."""
  with whole_file(path) as file:
    for record in records:
      file.write(json.dumps(record, ensure_ascii=False) + '\n')
