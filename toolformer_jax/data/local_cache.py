"""The folder for what is fetched and computed once, and in it the hashes of large files."""

import hashlib
import json
import os
import pathlib
import tempfile
import time
from typing import BinaryIO

from etils import epath

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_path, is_remote

# Smaller files are hashed in a tenth of a second.
_SMALL = 2**25  # bytes
# A file that changed this recently could change again without another time stamp.
_RECENT_NS = 2 * 10**9


def cache_directory() -> pathlib.Path:
  """Returns the folder of fetched files: `$TOOLFORMER_CACHE`, or `~/.cache/toolformer_jax`."""
  chosen = os.environ.get('TOOLFORMER_CACHE') or '~/.cache/toolformer_jax'
  if is_remote(chosen):
    raise UserError(f'TOOLFORMER_CACHE is {chosen}; it must be on disk, as its files are mapped')
  return pathlib.Path(chosen).expanduser()


def file_sha256(path: epath.PathLike) -> str:
  """Returns the sha256 of the content of a file, in hexadecimal.

  That of a large file is kept in the cache, and taken from there as long as the file's path, size
  and times (of the last change of its content, and of anything about it) are the same; in a bucket,
  its size and generation.
  """
  path = as_path(path)
  with path.open('rb') as file:
    stamp = _stamp(path, file)
    if stamp['size'] < _SMALL:
      return hashlib.file_digest(file, 'sha256').hexdigest()
    kept = cache_directory() / 'hashes' / f'{hashlib.sha256(_name(path)).hexdigest()[:32]}.json'
    if known := _read(kept, stamp):
      return known
    found = hashlib.file_digest(file, 'sha256').hexdigest()
    changed_ns = max(stamp.get('changed_ns', 0), stamp.get('modified_ns', 0))
    if time.time_ns() - changed_ns > _RECENT_NS and stamp == _stamp(path, file):
      _write(kept, {**stamp, 'sha256': found})
    return found


def _stamp(path: epath.Path, file: BinaryIO) -> dict[str, int]:
  if is_remote(path):
    import fsspec
    file_system, name = fsspec.url_to_fs(os.fspath(path))
    stated = file_system.info(name)
    return {'size': stated['size'], 'generation': int(stated['generation'])}
  status = os.fstat(file.fileno())
  return {'size': status.st_size, 'modified_ns': status.st_mtime_ns,
          'changed_ns': status.st_ctime_ns}


def _name(path: epath.Path) -> bytes:
  return os.fsencode(path if is_remote(path) else os.path.realpath(path))


def _read(kept: pathlib.Path, stamp: dict[str, int]) -> str | None:
  """Returns the hash in a file of the cache; None if it is of another stamp, or damaged."""
  try:
    fields = json.loads(kept.read_bytes())
    known = fields.pop('sha256')
    is_hash = len(bytes.fromhex(known)) == 32
  except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
    return None
  return known if is_hash and fields == stamp else None


def _write(kept: pathlib.Path, fields: dict[str, int | str]) -> None:
  """Writes a file of the cache, whole; a cache that cannot be written only costs time."""
  try:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile('w', dir=kept.parent, delete=False) as file:
      json.dump(fields, file)
    os.replace(file.name, kept)
  except OSError:
    return
