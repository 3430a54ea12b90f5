"""Being asked to stop: SIGTERM, by which machines are taken away."""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

import jax
from jax.experimental import multihost_utils

log = logging.getLogger(__name__)


class StopSignal:
  """Notices SIGTERM while it is open; a second one ends the process as it always does.

  Of several processes that train together JAX has a handler of its own.
  """

  def __init__(self):
    """Nobody has asked yet."""
    self._received = False
    self._before = None

  def reached(self, step: int) -> bool:
    """Tells whether to stop after `step`; the same for all processes. To be asked at every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._received

  def __enter__(self) -> Self:
    # Python lets no other thread handle signals.
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._receive)
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._restore()

  def _receive(self, number: int, frame: FrameType | None) -> None:
    self._received = True
    self._restore()

  def _restore(self) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)
      self._before = None
