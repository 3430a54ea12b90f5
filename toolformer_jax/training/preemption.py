"""Notices that the process is asked to stop, so that training can save its state first."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils


class StopSignal:
  """Notices SIGTERM, which preempted machines get; a second one ends the process as usual.

  For several processes that train together, JAX has a handler of its own.
  """

  def __init__(self) -> None:
    """Starts with no signal received."""
    self._received = False
    self._previous_handler: Callable[[int, FrameType | None], Any] | int | None = None

  def reached(self, step: int) -> bool:
    """Returns whether to stop after `step`: the same for all processes. Call it at every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._received

  def __enter__(self) -> Self:
    # Python lets only the main thread handle signals.
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._previous_handler = signal.signal(signal.SIGTERM, self._receive)
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._restore_handler()

  def _receive(self, number: int, frame: FrameType | None) -> None:
    self._received = True
    self._restore_handler()

  def _restore_handler(self) -> None:
    if self._previous_handler is not None:
      signal.signal(signal.SIGTERM, self._previous_handler)
      self._previous_handler = None
