"""Reports the progress of a long run."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import tqdm

log = logging.getLogger(__name__)

_LOG_EVERY_S = 30.0


def duration(seconds: float) -> str:
  """Returns a duration for people: `45 s`, `2.5 minutes`."""
  return f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.1f} minutes'


@contextlib.contextmanager
def still_working(description: str, every_s: float = _LOG_EVERY_S) -> Iterator[None]:
  """Logs that the work in its body goes on, and for how long so far, now and then."""
  start, done = time.monotonic(), threading.Event()
  def watch() -> None:
    while not done.wait(every_s):
      log.info('%s: for %s so far', description, duration(time.monotonic() - start))
  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()
  try:
    yield
  finally:
    done.set()
    watcher.join()


class Progress:
  """A progress bar on a terminal; otherwise a log message every 30 seconds."""

  def __init__(self, description: str, total: int, unit: str, done: int = 0):
    """Starts at `done` units, which an earlier run has finished, of `total`."""
    self._description, self._total, self._unit = description, total, unit
    self._done, self._first, self._start = done, done, time.monotonic()
    self._logged = self._start
    self._bar = tqdm.tqdm(desc=description, total=total, unit=unit, initial=done,
                          disable=not sys.stderr.isatty())

  def advance(self, units: int, note: str = '') -> None:
    """Adds finished units, and shows `note`."""
    self._done += units
    self._bar.set_postfix_str(note, refresh=False)
    self._bar.update(units)
    now = time.monotonic()
    if self._bar.disable and (now - self._logged > _LOG_EVERY_S or self._done >= self._total):
      self._logged = now
      rate = (self._done - self._first) / max(now - self._start, 1e-9)
      left = (self._total - self._done) / rate if rate else float('inf')
      log.info('%s: %d of %d %s, %.2f a second, %.0f s left %s', self._description, self._done,
               self._total, self._unit, rate, left, note)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._bar.close()
