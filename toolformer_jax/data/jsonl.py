"""Reads JSON Lines that others wrote, plain or compressed."""

import io
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from toolformer_jax.data.compression import open_binary, read_errors
from toolformer_jax.errors import UserError

_SURROGATE = '\\ud'  # how JSON spells one, and some other characters


def is_unicode(text: str) -> bool:
  """Tells whether `text` can be written as UTF-8; half a surrogate pair cannot."""
  try:
    text.encode('utf-8')
  except UnicodeEncodeError:
    return False
  return True


def read_objects(path: epath.Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields the JSON objects of a file with their line numbers, from 1; blank lines are skipped.

  Raises:
    UserError: the file cannot be read, or a line of it is not a JSON object in UTF-8.
  """
  number = 0
  try:
    with open_binary(path) as binary, io.TextIOWrapper(binary, 'utf-8-sig') as file:
      for number, line in enumerate(file, 1):
        if line.strip():
          yield number, _object(path, number, line)
  except UnicodeDecodeError as error:
    raise UserError(f'{path}: not UTF-8 after line {number} ({error.reason})') from error
  except read_errors(path) as error:
    raise UserError(f'cannot read {path} after line {number}: {error}') from error


def _object(path: epath.Path, number: int, line: str) -> dict[str, Any]:
  try:
    value = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path}:{number}: not JSON ({error}); correct or remove the line') from error
  if not isinstance(value, dict):
    raise UserError(f'{path}:{number}: not a JSON object; each line must be one, {{"text": ...}}')
  if _SURROGATE in line.lower() and not is_unicode(json.dumps(value, ensure_ascii=False)):
    raise UserError(f'{path}:{number}: half a surrogate pair is not a character; correct '
                    'or remove it')
  return value
