"""Opens files that may be compressed: gzip, bzip2, xz or Zstandard, by the end of the name."""

import bz2
import gzip
import lzma
import pathlib
import zlib
from types import ModuleType
from typing import BinaryIO

from toolformer_jax.errors import UserError

SUFFIXES = ('.gz', '.bz2', '.xz', '.zst')
_MAX_WINDOW = 2**31  # bytes; what `zstd --ultra --long=31` writes


def open_binary(path: pathlib.Path) -> BinaryIO:
  """Opens a file for reading bytes, decompressed if its name says that it is compressed.

  Raises:
    UserError: a package is missing.
    read_errors(path): the file cannot be read; reading raises them as well.
  """
  openers = {'.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open, '.zst': _open_zstandard}
  return openers.get(path.suffix, lambda path: open(path, 'rb'))(path)


def read_errors(path: pathlib.Path) -> tuple[type[Exception], ...]:
  """Returns what reading a file raises if it cannot be read or is damaged."""
  errors = (OSError, EOFError, zlib.error, lzma.LZMAError)
  if path.suffix != '.zst':
    return errors
  return (*errors, _zstandard(path).ZstdError)


def uncompressed_name(path: pathlib.Path) -> str:
  """Returns the name of a file without the end that says how it is compressed."""
  return path.stem if path.suffix in SUFFIXES else path.name


def _open_zstandard(path: pathlib.Path) -> BinaryIO:
  zstandard = _zstandard(path)
  return zstandard.open(path, 'rb', dctx=zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW))


def _zstandard(path: pathlib.Path) -> ModuleType:
  try:
    import zstandard  # an optional package: nothing else needs it
  except ImportError as error:
    raise UserError(f'reading {path} needs a package: pip install zstandard') from error
  return zstandard
