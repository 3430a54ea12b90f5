"""Downloads files by HTTP, goes on after a broken transfer, and unpacks archives."""

import hashlib
import http.client
import json
import os
import pathlib
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.progress import Progress

_CHUNK = 1 << 20
_TIMEOUT_S = 60.0
_WAITS_S = (1.0, 5.0, 20.0)  # before another try, if the last one brought nothing
_BROKEN = (http.client.HTTPException, ConnectionError, TimeoutError, urllib.error.URLError)


class DownloadError(UserError):
  """A file cannot be downloaded, for instance because there is no network."""


def download(address: str, target: pathlib.Path, sha256: str = '') -> str:
  """Writes the file at `address` to `target`, and returns its sha256.

  A target that is there is kept, if it has the right sha256. What has arrived of another one is
  kept beside it as `<name>.partial`; the next call goes on there, if the file at the address is
  still the same.

  Args:
    address: http:// or https://.
    target: where it is put when it is whole.
    sha256: that it must have; '' if that is not known.

  Raises:
    DownloadError: the server refuses it, or the transfer breaks off again and again.
    UserError: it has another sha256.
    OSError: it cannot be written.
  """
  if target.exists() and (found := _sha256(target)) == (sha256 or found):
    return found
  partial = target.with_name(f'{target.name}.partial')
  tries = iter(_WAITS_S)
  while True:
    before = _size(partial)
    try:
      _receive(address, partial)
      break
    except urllib.error.HTTPError as error:
      if error.code == 416 and before:  # what is there is not a beginning of this file
        partial.unlink()
        continue
      raise DownloadError(f'cannot download {address}: {error.code} {error.reason}') from error
    except _BROKEN as error:
      if _size(partial) > before:
        tries = iter(_WAITS_S)
      wait = next(tries, None)
      if wait is None:
        reason = getattr(error, 'reason', None) or error
        raise DownloadError(f'cannot download {address}: {reason}; check the network, and run it '
                            'again to go on') from error
      time.sleep(wait)
  found = _sha256(partial)
  _stamp_of(partial).unlink(missing_ok=True)
  if sha256 and found != sha256:
    partial.unlink()
    raise UserError(f'{address} has sha256 {found}, not {sha256}: it was changed, or the transfer '
                    'was; try again')
  os.replace(partial, target)
  return found


def _receive(address: str, partial: pathlib.Path) -> None:
  """Appends to `partial` what it lacks; raises one of _BROKEN if the end is not reached."""
  start, stamp = _size(partial), _stamp_of(partial)
  known = json.loads(stamp.read_text('utf-8')) if stamp.exists() else ''
  headers = {'User-Agent': 'toolformer_jax', 'Accept-Encoding': 'identity'}
  if start and known:
    headers |= {'Range': f'bytes={start}-', 'If-Range': known}
  request = urllib.request.Request(address, headers=headers)
  with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
    if response.status != 206:
      start = 0
    stamp.write_text(json.dumps(response.headers.get('ETag')
                                or response.headers.get('Last-Modified') or ''), 'utf-8')
    length = response.headers.get('Content-Length')
    end = start + int(length) if length else None
    with open(partial, 'ab' if start else 'wb') as file:
      arrived = start + _copy(response, file, start, end, address)
  if end is not None and arrived < end:
    raise ConnectionError(f'the transfer broke off after {arrived} of {end} bytes')


def _copy(response: BinaryIO, file: BinaryIO, start: int, end: int | None, address: str) -> int:
  """Copies all that comes, and returns how many bytes that were."""
  count, name = 0, address.rpartition('/')[2]
  with Progress(name, (end or start) // 10**6, 'MB', done=start // 10**6) as progress:
    while chunk := response.read(_CHUNK):
      file.write(chunk)
      progress.advance((start + count + len(chunk)) // 10**6 - (start + count) // 10**6)
      count += len(chunk)
  return count


def _stamp_of(partial: pathlib.Path) -> pathlib.Path:
  """Returns the file that says of which version of the file at the address `partial` is."""
  return partial.with_name(f'{partial.name}.version')


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0


def _sha256(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def unpack(archive: pathlib.Path, folder: pathlib.Path, prefixes: tuple[str, ...]) -> None:
  """Writes those files of an archive to `folder` whose path begins with one of `prefixes`.

  The outermost folder is taken off: `data/TREx/P17.jsonl` becomes `TREx/P17.jsonl`.

  Raises:
    UserError: it is damaged, a path of it leads out of the folder, or none begins like that.
  """
  try:
    is_empty = True
    with _members(archive) as members:
      for name, source in members:
        _check_path(archive, name)
        if source is None or not name.startswith(prefixes):
          continue
        target = folder / name[name.find('/') + 1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        with source() as opened, open(target, 'wb') as file:
          shutil.copyfileobj(opened, file, _CHUNK)
        is_empty = False
  except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError) as error:
    raise UserError(f'{archive.name} is not the archive expected ({error})') from error
  if is_empty:
    raise UserError(f'{archive.name} is not the archive expected: it has no {prefixes[0]}')


@contextmanager
def _members(archive: pathlib.Path) -> Iterator:
  """Opens an archive as pairs of a path and, for regular files, a function that opens the file."""
  if zipfile.is_zipfile(archive):
    with zipfile.ZipFile(archive) as opened:
      yield [(one.filename, None if one.is_dir() else lambda one=one: opened.open(one))
             for one in opened.infolist()]
  else:
    with tarfile.open(archive) as opened:
      # Links are no regular files: what they lead to is not written either.
      yield ((one.name, (lambda one=one: opened.extractfile(one)) if one.isfile() else None)
             for one in opened)


def _check_path(archive: pathlib.Path, name: str) -> None:
  path = pathlib.PurePosixPath(name.replace('\\', '/'))
  if path.is_absolute() or '..' in path.parts or pathlib.PureWindowsPath(name).drive:
    raise UserError(f'{archive.name} is not unpacked: the path {name!r} in it leads out of the '
                    'folder')


def announce(text: str) -> None:
  """Prints a line of progress to standard error."""
  print(text, file=sys.stderr, flush=True)
