"""Finds and reads the official files of a benchmark, DATA_DIR/<task>/..., plain or .gz."""

import csv
import fnmatch
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import files_under, glob, storage_errors


class MissingDataError(UserError):
  """The files of a benchmark are missing: the benchmark is skipped."""


@dataclass
class TaskFolder:
  """The folder of the files of one benchmark.

  Attributes:
    path: the folder.
    how_to_get: tells somebody who lacks the files where to get them.
    split: the part of the benchmark that a reader reads; it may set another one.
    found: the files that a reader has asked for, in this order, and were there.
  """

  path: epath.Path
  how_to_get: str
  split: str = ''
  found: list[epath.PathLike] = field(default_factory=list)

  def files(self, *patterns: str) -> list[epath.Path]:
    """Returns the files that match the first of `patterns` that any matches, sorted.

    Raises:
      MissingDataError: there are none.
    """
    paths = self._matching(patterns)
    self.found += paths
    return paths

  def file(self, *patterns: str) -> epath.Path:
    """Returns the first file that matches, see `files`."""
    path = self._matching(patterns)[0]
    self.found.append(path)
    return path

  def rows(self, name: str, split: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a data set of TensorFlow Datasets, which `TfdsFolder` has.

    Raises:
      MissingDataError: this is a folder of files.
    """
    raise MissingDataError(f'{self.path} is not read: {self.how_to_get}')

  def _matching(self, patterns: Sequence[str]) -> list[epath.Path]:
    for pattern in patterns:
      paths = {path for suffix in ('', '.gz') for path in self._glob(pattern + suffix)}
      # A compressed copy of a file is not read as well.
      paths = {path for path in paths if path.suffix != '.gz' or path.with_suffix('') not in paths}
      if paths:
        return sorted(paths)
    wanted = ' nor '.join(patterns)
    where = (f'{self.path} has no {wanted} (or .gz)' if self.path.is_dir()
             else f'there is no folder {self.path} (with {patterns[0]}, or .gz)')
    raise MissingDataError(f'{where}: {self.how_to_get}')

  def _glob(self, pattern: str) -> list[epath.Path]:
    """Returns the files `name`, `folder/name` or, in any folder, `**/name`."""
    folder, _, name = pattern.rpartition('/')
    if folder != '**':
      return glob(self.path / folder, name)
    return [path for path in files_under(self.path) if fnmatch.fnmatchcase(path.name, name)]


def read_text(path: epath.Path) -> str:
  """Returns the text of a file in UTF-8.

  Raises:
    UserError: it cannot be read.
  """
  try:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == '.gz' else data).decode('utf-8-sig')
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) + storage_errors() as error:
    raise UserError(f'cannot read {path}: {error}') from error


def read_json(path: epath.Path) -> Any:
  """Returns the value in a JSON file.

  Raises:
    UserError: it cannot be read.
  """
  try:
    return json.loads(read_text(path))
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path}: not JSON ({error})') from error


def read_lines(path: epath.Path) -> Iterator[dict[str, Any]]:
  """Yields the objects of JSON Lines.

  Raises:
    UserError: a line cannot be read.
  """
  return (fields for _, fields in read_objects(path))


def read_tsv(path: epath.Path) -> list[dict[str, str]]:
  """Returns the rows of a file of values between tabs, with a header; quotes mean nothing.

  Raises:
    UserError: a row has another number of values than the header.
  """
  header, *rows = [line.split('\t') for line in read_text(path).splitlines()] or [[]]
  for number, row in enumerate(rows, 2):
    if len(row) != len(header):
      raise UserError(f'{path}:{number}: {len(row)} values, but the header has {len(header)}')
  return [dict(zip(header, row, strict=True)) for row in rows]


def read_csv(path: epath.Path) -> list[dict[str, str]]:
  """Returns the rows of a CSV file with a header.

  Raises:
    UserError: it cannot be read.
  """
  try:
    return list(csv.DictReader(io.StringIO(read_text(path), newline='')))
  except csv.Error as error:
    raise UserError(f'{path}: not CSV ({error})') from error
