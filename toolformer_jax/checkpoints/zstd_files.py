"""Weight files that are compressed by Zstandard: `NAME.zst`, of which `zstd -d` restores `NAME`."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from etils import epath

from toolformer_jax.data.compression import open_binary, read_errors, zstandard_package
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import reason

SUFFIX = '.zst'
_CHUNK = 2**22
_HEADER = 18  # bytes of the largest header of a frame


def check_zstandard() -> None:
  """Raises UserError if the package that compresses is not installed."""
  zstandard_package()


def compress_file(file: epath.Path) -> None:
  """Replaces a file on disk by a compressed one with a checksum, `FILE.zst`.

  Raises:
    OSError: it cannot be written.
  """
  # Level 3, the default: higher ones take many times as long and save hardly more of weights.
  compressor = zstandard_package().ZstdCompressor(write_checksum=True)
  with open(file, 'rb') as plain, open(f'{file}{SUFFIX}', 'wb') as compressed:
    compressor.copy_stream(plain, compressed, size=os.path.getsize(file))
  file.unlink()


def stored_file(folder: epath.Path, name: str) -> epath.Path | None:
  """Returns the file called `name` in a folder, as it is or compressed; None if there is none."""
  return next((file for file in (folder / name, folder / (name + SUFFIX)) if file.is_file()), None)


def content_bytes(file: epath.Path) -> int:
  """Returns the size of a file's content, without the compression if it is compressed.

  Raises:
    UserError: it is no file of Zstandard, or one that does not say how large its content is.
  """
  if file.suffix != SUFFIX:
    return file.stat().length
  zstandard = zstandard_package()
  with file.open('rb') as opened:
    header = opened.read(_HEADER)
  try:
    size = zstandard.frame_content_size(header)
  except zstandard.ZstdError as error:
    raise UserError(f'{file} is damaged: it is no file of Zstandard ({error})') from error
  if size < 0:
    raise UserError(f'{file} does not say how large its content is; decompress it with `zstd -d`, '
                    'and compress it again as a file, not as a stream')
  return size


@contextlib.contextmanager
def plain_file(file: epath.Path) -> Iterator[epath.Path]:
  """Yields a file, or if it is compressed a temporary one with its content.

  The temporary file is removed at the end. A process that has mapped it to memory keeps its
  content.

  Raises:
    UserError: the file is damaged or not whole, the disk has too little space, or the package
      zstandard is missing.
  """
  if file.suffix != SUFFIX:
    yield file
    return
  size, folder = content_bytes(file), tempfile.gettempdir()
  if size > (free := shutil.disk_usage(folder).free):
    raise UserError(f'{file} has {size:,} bytes when it is decompressed, and {folder} has only '
                    f'{free:,} left; set TMPDIR to a folder with more')
  with tempfile.TemporaryDirectory(prefix='toolformer-', ignore_cleanup_errors=True) as scratch:
    plain = pathlib.Path(scratch, file.stem)
    try:
      found = _decompress(file, plain, size)
    except read_errors(file) as error:
      raise UserError(f'{file} cannot be decompressed: {reason(error)}') from error
    if found != size:
      raise UserError(f'{file} is not complete: decompressed, it does not have the {size:,} bytes '
                      'that it says; copy it again')
    yield epath.Path(plain)


def _decompress(file: epath.Path, plain: pathlib.Path, size: int) -> int:
  """Writes the content of a compressed file, `size` bytes at most; returns how many there were."""
  found = 0
  with open_binary(file) as compressed, open(plain, 'wb') as opened:
    while found <= size and (chunk := compressed.read(_CHUNK)):
      opened.write(chunk)
      found += len(chunk)
  return found
