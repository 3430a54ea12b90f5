"""Runs tool calls concurrently, each within a time limit; a call always has an outcome."""

import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent import futures
from dataclasses import dataclass, field
from typing import Self

from toolformer_jax import errors
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.tools.base import Context, Tool, ToolError

_MAX_REASON_CHARS = 200
# A result of megabytes is cut to this many times its limit before it is cleaned: blanks shrink.
_SLACK = 8
_TIME_LIMIT = 'time limit'


@dataclass(frozen=True)
class Request:
  """A call to make: the tool's name as calls spell it, its argument, the document's context."""

  tool: str
  argument: str
  context: Context = Context()


@dataclass(frozen=True)
class Outcome:
  """What came of a call: a clean result, or else the failure, `Tool: reason`; and its duration."""

  result: str | None
  failure: str | None
  seconds: float


@dataclass
class ToolCounts:
  """How often one tool was called, for how many seconds in all, and how often it failed why.

  A failure's kind is its reason up to the first colon: a ToolError's own words, else the name of
  the exception.
  """

  calls: int = 0
  seconds: float = 0.0
  failures: Counter[str] = field(default_factory=Counter)

  @property
  def timeouts(self) -> int:
    """How many calls were abandoned at the time limit."""
    return self.failures[_TIME_LIMIT]


@dataclass
class _Job:
  request: Request
  future: futures.Future[Outcome] = field(default_factory=futures.Future)
  started: float = 0.0
  settled: bool = False


class Executor:
  """Runs calls on `workers` threads; to be used as a context manager, or closed.

  A thread can not be killed: one whose call is over the time limit is abandoned, its result
  ignored, and another takes its place. All threads are daemons, so none hangs the exit.

  Attributes:
    counts: ToolCounts by the tool's name.
  """

  def __init__(
      self,
      tools: Iterable[Tool],
      time_limit_s: float = 10.0,
      max_result_chars: int = 400,
      workers: int = 8,
      syntax: CallSyntax = DEFAULT_SYNTAX,
  ):
    """Starts the threads; results are cleaned for `syntax` and cut to `max_result_chars`."""
    self._tools = {tool.name: tool for tool in tools}
    self._time_limit_s = time_limit_s
    self._max_result_chars = max_result_chars
    self._syntax = syntax
    self._workers = workers
    self._closed = False
    self._lock = threading.Lock()
    self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
    self._started: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
    self.counts = {name: ToolCounts() for name in self._tools}
    for _ in range(workers):
      _start_thread(self._work)
    _start_thread(self._watch)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def submit(self, request: Request) -> futures.Future[Outcome]:
    """Returns the future Outcome of `request`: a tool's failure is an outcome, not an exception.

    Raises:
      UserError: there is no such tool.
      RuntimeError: the executor is closed.
    """
    if request.tool not in self._tools:
      raise errors.unknown('tool', request.tool, self._tools)
    job = _Job(request)
    with self._lock:
      if self._closed:
        raise RuntimeError('the executor is closed')
      self._waiting.put(job)
    return job.future

  def run(self, requests: Iterable[Request]) -> list[Outcome]:
    """Returns the outcomes of `requests`, in their order; raises what `submit` raises."""
    return [future.result() for future in [self.submit(request) for request in requests]]

  def close(self) -> None:
    """Cancels the calls that have not started, and lets go of the threads of those that have."""
    with self._lock:
      if self._closed:
        return
      self._closed = True
    while not self._waiting.empty():
      self._cancel_one()
    for _ in range(self._workers):
      self._waiting.put(None)

  def _cancel_one(self) -> None:
    try:
      self._waiting.get_nowait().future.cancel()
    except queue.Empty:
      pass  # A worker was faster.

  def _work(self) -> None:
    """Runs jobs until told to stop, or until abandoned in the midst of one."""
    while (job := self._waiting.get()) is not None:
      if job.future.set_running_or_notify_cancel() and not self._execute(job):
        return
    self._started.put(None)

  def _watch(self) -> None:
    """Settles each job that is over its time: deadlines come in the order of the starts."""
    running = self._workers
    while running:
      job = self._started.get()
      if job is None:
        running -= 1
        continue
      left = job.started + self._time_limit_s - time.perf_counter()
      futures.wait([job.future], timeout=max(left, 0))
      if self._settle(job, None, f'{_TIME_LIMIT}: none within {self._time_limit_s} seconds'):
        _start_thread(self._work)

  def _execute(self, job: _Job) -> bool:
    """Runs `job`; returns whether its outcome was still wanted."""
    job.started = time.perf_counter()
    self._started.put(job)
    try:
      result, reason = self._result(job.request), None
    except BaseException as error:  # Whatever a tool does, a worker lives on.
      result, reason = None, _reason(error)
    return self._settle(job, result, reason)

  def _result(self, request: Request) -> str:
    result = self._tools[request.tool](request.argument, request.context)
    if not isinstance(result, str):
      raise TypeError(f'returned {type(result).__name__}, not a text')
    start = result.lstrip()[:_SLACK * self._max_result_chars]
    cleaned = self._syntax.clean_result(start, self._max_result_chars)
    if not cleaned:
      raise ToolError('empty result')
    return cleaned

  def _settle(self, job: _Job, result: str | None, reason: str | None) -> bool:
    """Gives `job` its outcome and counts it, unless it has one: worker and watch may compete."""
    name, seconds = job.request.tool, time.perf_counter() - job.started
    with self._lock:
      if job.settled:
        return False
      job.settled = True
      counts = self.counts[name]
      counts.calls += 1
      counts.seconds += seconds
      if reason:
        counts.failures[reason.partition(':')[0]] += 1
    # Outside of the lock: a callback of the future may submit the next call.
    job.future.set_result(Outcome(result, reason and f'{name}: {reason}', seconds))
    return True


def _start_thread(function: Callable[[], None]) -> None:
  threading.Thread(target=function, name='tool', daemon=True).start()


def _reason(error: BaseException) -> str:
  """Returns why `error` was raised, on one line that is never blank."""
  if isinstance(error, ToolError):
    text = str(error)
  else:
    text = traceback.format_exception_only(error)[-1]
  return ' '.join(text[:_MAX_REASON_CHARS].split()) or type(error).__name__
