"""Computes a function of many items in several processes, in order, with bounded memory.

The processes are not those of `multiprocessing`: that one runs the user's script again in each, so
that a script without `if __name__ == '__main__':` would fail; and its processes outlive a parent
that is killed. Ours import the function alone, and end with the connection to their parent.
"""

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from toolformer_jax.errors import UserError

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')
_PROGRAM = 'import sys; sys.path[:] = {path!r}; from {module} import work; work({descriptor})'


def num_cores() -> int:
  """Returns the number of cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def map_in_order(function: Callable[[_Item], _Result], items: Iterable[_Item], *,
                 chunk: int = 1, processes: int | None = None) -> Iterator[_Result]:
  """Yields function(item) for all items, in their order.

  Up to one chunk for each process, and two more, are in memory. If there is one chunk alone, no
  other process is started.

  Args:
    function: of a module, or a `functools.partial` of such a one.
    items: its arguments.
    chunk: how many items a process gets at once.
    processes: how many there are; by default one for each core.

  Raises:
    UserError: a process ended before its time.
    Exception: what `function` raises.
  """
  processes, items = processes or num_cores(), iter(items)
  chunks = iter(lambda: list(itertools.islice(items, chunk)), [])
  first = list(itertools.islice(chunks, 2))
  chunks = itertools.chain(first, chunks)
  if processes == 1 or len(first) < 2:
    yield from map(function, itertools.chain.from_iterable(chunks))
    return
  with contextlib.ExitStack() as stack:
    pool = stack.enter_context(ThreadPoolExecutor(processes))
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for _ in range(processes):
      idle.put(stack.enter_context(contextlib.closing(_Worker(function))))
    stack.callback(pool.shutdown, wait=False, cancel_futures=True)
    waiting: deque[Future[list[Any]]] = deque()
    for some in chunks:
      waiting.append(pool.submit(_compute, idle, some))
      if len(waiting) > processes + 1:
        yield from waiting.popleft().result()
    while waiting:
      yield from waiting.popleft().result()


def _compute(idle: queue.SimpleQueue['_Worker'], items: Sequence[Any]) -> list[Any]:
  worker = idle.get()
  try:
    return worker.compute(items)
  finally:
    idle.put(worker)


class _Worker:
  """A process that computes a function."""

  def __init__(self, function: Callable[[Any], Any]):
    self._connection, other = Pipe()
    program = _PROGRAM.format(path=sys.path, module=__name__, descriptor=other.fileno())
    with other:
      self._process = subprocess.Popen([sys.executable, '-c', program], stdin=subprocess.DEVNULL,
                                       stdout=2, pass_fds=[other.fileno()])
    self._connection.send(function)

  def compute(self, items: Sequence[Any]) -> list[Any]:
    try:
      self._connection.send(items)
      results, error = self._connection.recv()
    except (EOFError, OSError) as lost:
      raise UserError('a process that helps this one ended before its time; is there enough '
                      'memory?') from lost
    if error is not None:
      raise error
    return results

  def close(self) -> None:
    self._process.kill()
    self._process.wait()
    self._connection.close()


def work(descriptor: int) -> None:
  """Computes what comes from the parent, until that closes the connection or is killed."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
  with Connection(descriptor) as connection, contextlib.suppress(EOFError, OSError):
    function = connection.recv()
    while True:
      items = connection.recv()
      try:
        answer = [function(item) for item in items], None
      except Exception as error:
        answer = None, error
      connection.send(answer)
