"""JSON files with a checksum, and the checksums of chunks of records, so that damage is noticed."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import read_json, write_json


def write_checked_json(file: epath.Path, value: Mapping[str, Any]) -> None:
  """Writes a JSON object with a checksum of its content."""
  write_json(file, {**value, 'checksum': _checksum(value)})


def read_checked_json(file: epath.Path) -> dict[str, Any]:
  """Returns the object in a file of `write_checked_json`.

  Raises:
    UserError: the file cannot be read, or its content has changed.
  """
  value = read_json(file)
  if value.pop('checksum', None) != _checksum(value):
    raise UserError(f'{file} does not have the content that was written')
  return value


def _checksum(value: Mapping[str, Any]) -> str:
  return sha256(json.dumps(value, sort_keys=True).encode())


def sha256(data: bytes) -> str:
  """Returns the SHA-256 of `data`, in hexadecimal."""
  return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class ChunkInfo:
  """What is known of a chunk of records: the content of its counts file.

  Attributes:
    records: number of records.
    sha256: of the file of records.
    counts: from the computation of the chunk.
  """

  records: int
  sha256: str
  counts: Counter[str]

  def write(self, file: epath.Path) -> None:
    """Writes the counts file."""
    write_checked_json(file, {'records': self.records, 'sha256': self.sha256,
                              'counts': dict(sorted(self.counts.items()))})

  @classmethod
  def read(cls, file: epath.Path) -> 'ChunkInfo':
    """Reads a counts file.

    Raises:
      UserError: the file cannot be read, or its content has changed.
    """
    fields = read_checked_json(file)
    try:
      return cls(fields['records'], fields['sha256'], Counter(fields['counts']))
    except (KeyError, TypeError, ValueError) as error:
      raise UserError(f'{file} is not a counts file') from error

  def check(self, file: epath.Path, data: bytes) -> None:
    """Checks that `data` is what was written to `file`.

    Raises:
      UserError: it is not.
    """
    if sha256(data) != self.sha256:
      raise UserError(f'{file} does not have the {self.records} records that were written: it was '
                      'changed or cut')
