"""Copies of files in buckets, on disk, for readers that map them to memory."""

import base64
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import filelock
from etils import epath

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.local_cache import cache_directory
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_path, reason, storage_errors


def local_copy(files: Sequence[epath.Path]) -> epath.Path:
  """Returns a folder on disk with copies of `files`, which are in a bucket and differ in name.

  The copies stay in the cache, under a name that depends on the paths, sizes and checksums of the
  files: they are made once, and again after a file has changed. Each one is checked by its size,
  and by its MD5 where the store has it.

  Raises:
    UserError: a file is missing, the cache cannot be written, or a copy is not like its original.
  """
  with _explained_errors(files):
    file_system, stated = _stated(files)
    folder = _folder(files, stated)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_name(f'{folder.name}.lock')):
      if not folder.is_dir():
        _copy(file_system, stated, folder)
  return folder


def find_local_copy(files: Sequence[epath.Path]) -> epath.Path | None:
  """Returns the folder that `local_copy` has made of `files` as they are now; None without one.

  Raises:
    UserError: a file is missing.
  """
  with _explained_errors(files):
    folder = _folder(files, _stated(files)[1])
    return folder if folder.is_dir() else None


@contextlib.contextmanager
def _explained_errors(files: Sequence[epath.Path]) -> Iterator[None]:
  try:
    yield
  except (OSError,) + storage_errors() as error:
    raise UserError(f'cannot copy {files[0].parent} to the cache {cache_directory()}: '
                    f'{reason(error)}') from error


def _stated(files: Sequence[epath.Path]) -> tuple[Any, dict[str, dict[str, Any]]]:
  """Returns the file system of `files`, and by name what it states about them."""
  import fsspec
  file_system, _ = fsspec.url_to_fs(os.fspath(files[0]))
  return file_system, {file.name: file_system.info(os.fspath(file)) for file in files}


def _folder(files: Sequence[epath.Path], stated: Mapping[str, Mapping[str, Any]]) -> epath.Path:
  key = stable_hash(*map(str, files), *(f'{one["size"]} {one.get("md5Hash")} {one.get("etag")}'
                                        for one in stated.values())).hex()[:16]
  return as_path(cache_directory()) / 'buckets' / key


def _copy(file_system: Any, stated: dict[str, dict[str, Any]], folder: epath.Path) -> None:
  """Copies files to `folder`, which appears as a whole."""
  prefix = f'{folder.name}.part-'
  for leftover in folder.parent.glob(f'{prefix}*'):  # of a killed process: we hold the lock
    shutil.rmtree(leftover, ignore_errors=True)
  with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as scratch:
    whole = epath.Path(scratch) / 'whole'
    whole.mkdir()
    for name, file in stated.items():
      file_system.get_file(file['name'], os.fspath(whole / name))
      _check(whole / name, file)
    os.rename(whole, folder)


def _check(copy: epath.Path, stated: dict[str, Any]) -> None:
  with copy.open('rb') as file:
    size, found = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, 'md5').digest()
  if size != stated['size'] or (
      stated.get('md5Hash') and base64.b64decode(stated['md5Hash']) != found):
    raise UserError(f'the copy of {stated["name"]} is not like the file in the bucket; try again')
