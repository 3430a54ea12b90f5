"""Paths on disk and in buckets of Google Cloud Storage (`gs://bucket/name`), as one type.

A bucket has no folders, no renames and no appending: an object gets its name when it is complete.
What reads and writes files uses the methods of `epath.Path` and the functions of this module.
"""

import contextlib
import fnmatch
import functools
import importlib.util
import io
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Literal

from etils import epath

from toolformer_jax.errors import UserError

_GCS = 'gs://'
_HUB = 'hf://'  # names of models and data sets, of which there is no file
_ADDRESS = re.compile(r'[A-Za-z][\w+.-]*://')

if importlib.util.find_spec('gcsfs'):
  # Otherwise epath loads TensorFlow for buckets, wherever it is installed.
  os.environ.setdefault('EPATH_USE_TF', 'false')
  # Zonal buckets, which gcsfs supports as an experiment; it looks for them at every access.
  os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')


def as_path(path: epath.PathLike) -> epath.Path:
  """Returns `path` as an object that reads and writes files on disk as well as in buckets.

  Raises:
    UserError: it cannot be a name, or is an address of another kind; or it is in a bucket, and the
      package for that is not installed.
  """
  name = os.fspath(path)
  if '\0' in name or not _is_unicode(name):
    raise UserError(f'{name!r} cannot be the name of a file or folder')
  if _ADDRESS.match(name) and not name.startswith((_GCS, _HUB)):
    raise UserError(f'{name}: neither a path nor in Google Cloud Storage (gs://); copy it to a '
                    'file or folder first')
  if name.startswith(_GCS):
    if not importlib.util.find_spec('gcsfs'):
      raise UserError(f'{name}: access to buckets needs a package: '
                      'pip install "toolformer_jax[gcs]"')
    _prepare_gcs()
  return epath.Path(name)


def _is_unicode(name: str) -> bool:
  try:
    os.fsencode(name)
    return True
  except UnicodeEncodeError:
    return False


def as_absolute_path(path: epath.PathLike) -> epath.Path:
  """Returns `as_path(path)`, which does not depend on the working directory: a tool may change it.

  Raises:
    UserError: see `as_path`.
  """
  path = as_path(path)
  # The methods `absolute` and `resolve` of epath put the working directory before gs://.
  return path if is_remote(path) else epath.Path(os.path.abspath(path))


def is_remote(path: epath.PathLike) -> bool:
  """Tells whether a path is in a bucket."""
  return os.fspath(path).startswith(_GCS)


@functools.cache
def _prepare_gcs() -> None:
  logging.getLogger('gcsfs').setLevel(logging.CRITICAL)  # what it logs, it also raises
  import fsspec
  # Listings change: other processes write to the folders of a run.
  fsspec.config.conf.setdefault('gcs', {})['use_listings_cache'] = False


def storage_errors() -> tuple[type[Exception], ...]:
  """Returns what access to a bucket raises besides OSError; () if no bucket was accessed."""
  if 'gcsfs' not in sys.modules:
    return ()
  import aiohttp
  import google.api_core.exceptions
  import google.auth.exceptions
  from gcsfs.retry import HttpError
  return (HttpError, aiohttp.ClientError, google.auth.exceptions.GoogleAuthError,
          google.api_core.exceptions.GoogleAPIError)


def reason(error: Exception) -> str:
  """Returns why a file cannot be read or written, on one line."""
  return ' '.join((getattr(error, 'strerror', None) or str(error) or repr(error)).split())


def is_file(path: epath.Path) -> bool:
  """Tells whether a path is a file; not a pipe, which could be read only once."""
  return path.is_file() if is_remote(path) else os.path.isfile(path)


def glob(folder: epath.Path, pattern: str) -> list[epath.Path]:
  """Returns what is in a folder and has a name like `pattern`, sorted; [] if there is no folder."""
  try:
    # Not `folder.glob`: epath takes brackets in the name of the folder for a pattern.
    return sorted(path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, pattern))
  except (FileNotFoundError, NotADirectoryError):
    return []


def files_under(folder: epath.Path) -> list[epath.Path]:
  """Returns all files in a folder and the folders in it, sorted."""
  if not is_remote(folder):
    return sorted(epath.Path(root, name) for root, _, names in os.walk(folder) for name in names
                  if os.path.isfile(os.path.join(root, name)))
  import fsspec
  file_system, name = fsspec.url_to_fs(os.fspath(folder))
  return sorted(epath.Path(_GCS + found) for found in file_system.find(name))


def file_stamps(folder: epath.Path) -> dict[str, int]:
  """Returns for each file of a folder, by its name, a number that changes when it is written again.

  {} if there is no folder.
  """
  try:
    if not is_remote(folder):
      with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_mtime_ns for entry in entries if entry.is_file()}
    import fsspec
    file_system, name = fsspec.url_to_fs(os.fspath(folder))
    return {one['name'].rpartition('/')[2]: int(one['generation'])
            for one in file_system.ls(name, detail=True) if one['type'] == 'file'}
  except FileNotFoundError:
    return {}


def make_directory(path: epath.Path) -> None:
  """Makes a folder, if it is on disk: in a bucket there are only files."""
  if not is_remote(path):
    path.mkdir(parents=True, exist_ok=True)


def open_text(path: epath.Path) -> IO[str]:
  """Opens a file of UTF-8 for reading."""
  # Not mode 'r': in a bucket the encoding would be the locale's.
  return io.TextIOWrapper(path.open('rb'), encoding='utf-8')


@contextlib.contextmanager
def atomic_writer(path: epath.PathLike, mode: Literal['w', 'wb'] = 'w', *, private: bool = False
                  ) -> Iterator[IO]:
  """Opens a file for writing, as UTF-8 or bytes, which gets the name `path` when it is complete.

  If the body raises, `path` stays as it is. A `private` file on disk can be read by its owner
  alone.

  Raises:
    OSError: it cannot be written.
  """
  path = as_path(path)
  encoding = 'utf-8' if mode == 'w' else None
  if is_remote(path):
    with tempfile.NamedTemporaryFile(mode, encoding=encoding) as file:
      yield file
      file.flush()
      upload(file.name, path)
    return
  temporary = path.with_name(path.name + '.tmp')
  try:
    with open(temporary, mode, encoding=encoding) as file:
      if private:
        os.chmod(temporary, 0o600)
      yield file
      file.flush()
      os.fsync(file.fileno())  # otherwise a crash of the machine can leave an empty file
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a file of UTF-8, which appears whole or not at all.

  Raises:
    OSError: it cannot be written.
  """
  with atomic_writer(path) as file:
    file.write(text)


@contextlib.contextmanager
def local_folder(path: epath.Path, last: str) -> Iterator[epath.Path]:
  """Yields a folder on disk for writers that know no buckets: `path`, if it is on disk.

  Otherwise its files are copied to `path` at the end, the one called `last` after all others.

  Raises:
    OSError: a file cannot be written.
  """
  if not is_remote(path):
    path.mkdir(parents=True, exist_ok=True)
    yield path
    return
  with tempfile.TemporaryDirectory() as scratch:
    yield epath.Path(scratch)
    for file in sorted(files_under(epath.Path(scratch)), key=lambda file: file.name == last):
      upload(file, path / file.relative_to(scratch))


def upload(file: epath.PathLike, path: epath.Path) -> None:
  """Copies a file on disk to a bucket, where it appears as a whole.

  Raises:
    OSError: it cannot be written.
  """
  import fsspec
  # Not `path.open('wb')`: if that is interrupted, it closes the object with what was written.
  file_system, name = fsspec.url_to_fs(os.fspath(path))
  try:
    file_system.put_file(os.fspath(file), name)
  except storage_errors() as error:
    raise OSError(reason(error)) from error
