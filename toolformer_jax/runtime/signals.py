"""Lets SIGINT and SIGTERM interrupt a command wherever it is, so that what it has started is ended.

Python runs the handler of a signal in the main thread, between two instructions. Two things can
stop it. An exception that the handler raises in a callback of native code, such as the end of an
array of JAX, is reported and dropped. And a signal that comes between the last check of the main
thread and a wait, for example for a lock, does not end that wait.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

_AGAIN_S = 0.05
# Ignored by default, and sent by nothing that we use.
_WAKE = signal.SIGURG


class Terminated(BaseException):
  """SIGTERM was received."""


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
  """Lets SIGTERM raise Terminated and SIGINT KeyboardInterrupt in the main thread, in any case."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  with _handler(signal.SIGTERM, _terminate), _lost_exceptions_are_raised(), _waits_end():
    yield


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
  raise Terminated


def _wake(number: int, frame: FrameType | None) -> None:
  pass


@contextlib.contextmanager
def _handler(number: int, handle: Any) -> Iterator[None]:
  before = signal.signal(number, handle)
  try:
    yield
  finally:
    signal.signal(number, before)


@contextlib.contextmanager
def _lost_exceptions_are_raised() -> Iterator[None]:
  """Sends a signal again whose exception was lost in a callback of native code."""
  def send_again(lost: Any) -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt | Terminated):
      number = signal.SIGTERM if issubclass(lost.exc_type, Terminated) else signal.SIGINT
      main = threading.main_thread().ident
      threading.Timer(_AGAIN_S, signal.pthread_kill, [main, number]).start()
    else:
      before(lost)
  before, sys.unraisablehook = sys.unraisablehook, send_again
  try:
    yield
  finally:
    sys.unraisablehook = before


@contextlib.contextmanager
def _waits_end() -> Iterator[None]:
  """Sends a second signal, without effect, after each: it ends a wait that the first one missed."""
  received, sent = os.pipe()
  os.set_blocking(sent, False)
  with _handler(_WAKE, _wake):
    waker = threading.Thread(target=_wake_thread, args=[threading.get_ident(), received],
                             daemon=True)
    before = signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    try:
      waker.start()
      yield
    finally:
      signal.set_wakeup_fd(before)
      os.close(sent)  # ends the thread


def _wake_thread(thread: int, received: int) -> None:
  """Reads the numbers of signals, and wakes `thread` after each, until there is no writer."""
  with open(received, 'rb', buffering=0) as numbers:
    while number := numbers.read(1):
      if number[0] != _WAKE:
        time.sleep(_AGAIN_S)
        signal.pthread_kill(thread, _WAKE)
