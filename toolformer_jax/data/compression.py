"""Opens files that may be compressed: gzip, bzip2, xz or Zstandard, by the end of the name."""

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, BinaryIO

from etils import epath

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import storage_errors

SUFFIXES = ('.gz', '.bz2', '.xz', '.zst')
_MAX_WINDOW = 2**31  # bytes; what `zstd --ultra --long=31` writes


@contextlib.contextmanager
def open_binary(path: epath.Path) -> Iterator[BinaryIO]:
  """Opens a file for reading bytes, decompressed if its name says that it is compressed.

  Raises:
    UserError: a package is missing.
    read_errors(path): the file cannot be read; reading raises them as well.
  """
  openers: dict[str, Callable[[BinaryIO], Any]] = {
      '.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open, '.zst': _open_zstandard}
  with path.open('rb') as file:
    if path.suffix not in openers:
      yield file
      return
    with openers[path.suffix](file) as decompressed:
      yield decompressed


def read_errors(path: epath.Path) -> tuple[type[Exception], ...]:
  """Returns what reading a file raises if it cannot be read or is damaged."""
  errors: tuple[type[Exception], ...] = (
      OSError, EOFError, zlib.error, lzma.LZMAError, *storage_errors())
  if path.suffix != '.zst':
    return errors
  return (*errors, zstandard_package().ZstdError)


def uncompressed_name(path: epath.Path) -> str:
  """Returns the name of a file without the end that says how it is compressed."""
  return path.stem if path.suffix in SUFFIXES else path.name


def _open_zstandard(file: BinaryIO) -> BinaryIO:
  zstandard = zstandard_package()
  return zstandard.open(file, 'rb', dctx=zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW))


def zstandard_package() -> ModuleType:
  """Returns the optional package that reads and writes .zst files.

  Raises:
    UserError: it is not installed.
  """
  try:
    import zstandard
  except ImportError as error:
    raise UserError('.zst files need a package: pip install zstandard') from error
  return zstandard
