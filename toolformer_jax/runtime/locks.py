"""Locks between processes, of one machine or of several.

On disk a lock is a locked file, which the system unlocks when its process ends. In a bucket it is a
lease: an object that its holder writes again every RENEW_S seconds and removes at the end. A lease
that has not been renewed for LEASE_S seconds is that of a killed process, and anybody may take it.
Clocks of machines may differ by less than LEASE_S - RENEW_S.
"""

import contextlib
import datetime
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Protocol, Self

import filelock
from etils import epath

from toolformer_jax.runtime.paths import is_remote

LEASE_S, RENEW_S = 30.0, 5.0
_POLL_S = 0.5

log = logging.getLogger(__name__)


class LockedError(Exception):
  """Another process holds the lock."""


class Lock(Protocol):
  """A lock, which is held in the body of a with statement; only once by each object."""

  def __enter__(self) -> Self:
    """Takes the lock.

    Raises:
      LockedError: another process holds it, and this one does not wait.
      OSError: the folder of the lock cannot be written.
    """

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    """Releases the lock."""


def lock(path: epath.Path, *, wait: bool = True) -> Lock:
  """Returns a lock that processes share by its path.

  Args:
    path: of the file or the object.
    wait: wait as long as another process holds the lock, instead of raising LockedError. A lease
      in a bucket is waited for until it is renewed or expires: the process may have been killed.
  """
  return _Lease(path, wait) if is_remote(path) else _LockedFile(path, wait)


def is_held(path: epath.Path) -> bool:
  """Tells whether a process holds the lock at `path`."""
  try:
    with lock(path, wait=False):
      return False
  except LockedError:
    return True


class _LockedFile:
  """A lock on disk."""

  def __init__(self, path: epath.Path, wait: bool):
    self._lock = filelock.FileLock(path, timeout=-1 if wait else 0)

  def __enter__(self) -> Self:
    try:
      self._lock.acquire()
    except filelock.Timeout as error:
      raise LockedError from error
    return self

  def __exit__(self, *exception: object) -> None:
    self._lock.release()


class _Lease:
  """A lock in a bucket.

  It is taken and renewed on the condition that the object is the one that was read, which the store
  checks (`if_generation_match`): of two processes only one succeeds.
  """

  def __init__(self, path: epath.Path, wait: bool):
    from google.cloud import storage
    _, _, bucket, *parts = path.parts
    self._path, self._wait = path, wait
    self._bucket = storage.Client().bucket(bucket)
    self._name = '/'.join(parts)
    self._holder = {'host': socket.gethostname(), 'pid': str(os.getpid()),
                    'id': uuid.uuid4().hex}
    self._generation = 0
    self._ended = threading.Event()
    self._renewal = threading.Thread(target=self._renew, name=f'lease {path}', daemon=True)

  def __enter__(self) -> Self:
    from google.api_core.exceptions import GoogleAPIError
    try:
      self._take()
    except GoogleAPIError as error:
      raise OSError(f'cannot write {self._path}: {error}') from error
    self._renewal.start()
    return self

  def __exit__(self, *exception: object) -> None:
    from google.api_core.exceptions import GoogleAPIError
    self._ended.set()
    self._renewal.join()
    with contextlib.suppress(GoogleAPIError):  # it expires
      self._bucket.blob(self._name).delete(if_generation_match=self._generation)

  def _take(self) -> None:
    """Takes the lease as soon as it is free or has expired."""
    first = None
    while not self._write(0):
      found = self._bucket.get_blob(self._name)
      if found is None:
        continue
      age = datetime.datetime.now(datetime.UTC) - found.updated
      if age.total_seconds() > LEASE_S:
        if self._write(found.generation):
          return
        continue
      if first is None:
        first = found.generation
        log.info('%s belongs to process %s on %s. Waiting for at most %.0f s: if that process '
                 'was killed, its lease expires', self._path.parent,
                 (found.metadata or {}).get('pid'), (found.metadata or {}).get('host'), LEASE_S)
      elif found.generation != first and not self._wait:
        raise LockedError
      time.sleep(_POLL_S)

  def _write(self, generation: int) -> bool:
    """Writes the object if it has `generation`, 0 for none; tells whether it did."""
    from google.api_core.exceptions import PreconditionFailed
    blob = self._bucket.blob(self._name)
    blob.metadata = self._holder
    try:
      blob.upload_from_string(json.dumps({**self._holder, 'time': time.time()}),
                              content_type='application/json', timeout=LEASE_S,
                              if_generation_match=generation)
    except PreconditionFailed:
      # The client repeats a request whose answer was lost, and then finds its own object.
      blob = self._bucket.get_blob(self._name)
      if blob is None or (blob.metadata or {}).get('id') != self._holder['id']:
        return False
    self._generation = blob.generation
    return True

  def _renew(self) -> None:
    from google.api_core.exceptions import GoogleAPIError
    while not self._ended.wait(RENEW_S):
      try:
        if not self._write(self._generation):
          log.error('another process has taken %s, whose lease this one did not renew for %.0f s; '
                    'stopping', self._path.parent, LEASE_S)
          if main := threading.main_thread().ident:
            signal.pthread_kill(main, signal.SIGINT)
          return
      except (GoogleAPIError, OSError) as error:  # the next attempt may succeed
        log.warning('the lease of %s could not be renewed: %s', self._path.parent, error)
