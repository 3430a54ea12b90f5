"""Reads the texts of `--input`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from etils import epath

from toolformer_jax.data.dates import leading_iso_date
from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.data.media_files import row_media
from toolformer_jax.errors import UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import Medium


@dataclass(frozen=True)
class InputText:
  """A text with its `id`, its ISO `date`, and the file and line that it comes `where` from.

  Attributes:
    media: its pictures, sounds and videos.
  """

  id: Any
  text: str
  date: str | None
  where: str
  media: tuple[Medium, ...] = ()


def read_texts(path: epath.Path, *, with_context: bool = True,
               limits: MediaLimits = MediaLimits()) -> Iterator[InputText]:
  """Yields the texts of JSON Lines (.jsonl, or compressed .jsonl.gz, .jsonl.zst).

  Args:
    path: the file.
    with_context: read the fields `date` and `media`, a list of files in the folder of the file;
      without, they may be anything.
    limits: what a medium may have.

  Raises:
    UserError: the file cannot be read, or a line of it has no text, an invalid date or a medium
      that is not in the folder.
  """
  for number, fields in read_objects(path):
    if not isinstance(fields.get('text'), str):
      raise UserError(f'{path}:{number}: the field `text`, a string, is missing')
    value = fields.get('date') if with_context else None
    date = leading_iso_date(value)
    if value is not None and date is None:
      raise UserError(f'{path}:{number}: the field `date` must begin with YYYY-MM-DD, not '
                      f'{value!r}')
    where = f'{path}:{number}'
    media = row_media(fields, path.parent, where, limits) if with_context else ()
    yield InputText(fields.get('id'), fields['text'], date, where, media)


def read_prompts(path: epath.Path, limits: MediaLimits = MediaLimits()) -> Iterator[InputText]:
  """Yields the texts of JSON Lines, as `read_texts`; of any other file, its lines.

  Only a line feed ends a line.

  Raises:
    UserError: the file cannot be read, or a line of it has no text.
  """
  if '.jsonl' in path.suffixes:
    yield from read_texts(path, limits=limits)
    return
  try:
    text = path.read_bytes().decode('utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'cannot read {path}: {error}') from error
  for number, line in enumerate(text.removesuffix('\n').split('\n') if text else [], 1):
    yield InputText(number, line.removesuffix('\r'), None, f'{path}:{number}')
