"""Keeps standard output for results, and silences native code that prints errors."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_STDOUT, _STDERR = 1, 2  # file descriptors
_reserved: list[TextIO] = []


def print_result(text: object, end: str = '\n') -> None:
  """Prints a result of a command to standard output."""
  print(text, end=end, flush=True, file=_reserved[-1] if _reserved else sys.stdout)


@contextlib.contextmanager
def reserve_for_results() -> Iterator[None]:
  """Sends everything that is not printed by `print_result` to standard error.

  That includes what C code and child processes write to the file descriptor.
  """
  with _descriptor_of_its_own(sys.stdout) as stdout, contextlib.redirect_stdout(sys.stderr):
    _reserved.append(stdout)
    try:
      yield
    finally:
      _reserved.pop()


@contextlib.contextmanager
def silence_native_stderr() -> Iterator[None]:
  """Discards what native code writes to standard error, such as the message of a Rust panic.

  Messages of other threads are lost too, so this should not last long.
  """
  try:
    copy = os.dup(_STDERR)
  except OSError:  # closed
    yield
    return
  try:
    with open(os.devnull, 'wb') as null:
      os.dup2(null.fileno(), _STDERR)
    yield
  finally:
    os.dup2(copy, _STDERR)
    os.close(copy)


@contextlib.contextmanager
def _descriptor_of_its_own(stdout: TextIO) -> Iterator[TextIO]:
  """Yields a stream to where `stdout` goes, and lets its descriptor point to standard error."""
  try:
    if stdout.fileno() != _STDOUT:
      raise ValueError
    copy = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
  except (OSError, ValueError, AttributeError):  # captured, closed, or not there
    yield stdout
    return
  try:
    with open(copy, 'w', encoding=stdout.encoding, errors=stdout.errors, closefd=False) as results:
      yield results
  finally:
    os.dup2(copy, _STDOUT)
    os.close(copy)
