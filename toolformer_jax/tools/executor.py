"""Runs tool calls concurrently, each within a time limit; a call always has an outcome.

Calls to a tool that is faster in batches are made together, in the order in which they are given:
which calls share a batch, and so any rounding in their results, does not depend on the moment.
"""

import itertools
import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Self

from toolformer_jax import errors
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.runtime.validation import check
from toolformer_jax.tools.base import BatchTool, Context, Tool, ToolError
from toolformer_jax.tools.call_store import Answer, CallStore

_MAX_REASON_CHARS = 200
# A result of megabytes is cut to this many times its limit before it is cleaned: blanks shrink.
_SLACK = 8
_TIME_LIMIT = 'time limit'
_MAX_HUNG = 50  # calls to one tool: each leaves a thread behind


@dataclass(frozen=True)
class ExecutorConfig:
  """Limits of tool calls, for every command that runs tools.

  Attributes:
    time_limit_s: seconds after which a call is abandoned; a tool that needs longer has a
      `time_limit_s` of its own.
    max_result_chars: longer results are cut.
    workers: threads, that is calls that run at the same time.
  """

  time_limit_s: float = 10.0
  max_result_chars: int = 600
  workers: int = 8

  def __post_init__(self):
    check(self, time_limit_s=(0.001, 3600.0), max_result_chars=(1, 100_000), workers=(1, 1000))


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
  """Calls to one tool that are made together."""

  requests: Sequence[Request]
  futures: Sequence[futures.Future[Outcome]]
  started: float = 0.0
  settled: bool = False


class Executor:
  """Runs calls on threads; to be used as a context manager, or closed.

  A thread cannot be killed: one whose call is over the time limit is abandoned, its result
  ignored, and another takes its place. All threads are daemons, so none hangs the exit.

  Attributes:
    counts: ToolCounts by the tool's name.
  """

  def __init__(
      self,
      tools: Iterable[Tool],
      config: ExecutorConfig = ExecutorConfig(),
      *,
      syntax: CallSyntax = DEFAULT_SYNTAX,
      store: CallStore | None = None,
  ):
    """Starts the threads.

    Args:
      tools: the tools that can be called, by their names.
      config: limits; calls made together have the sum of their time limits.
      syntax: results are cleaned so that they cannot open or close a call in it.
      store: calls whose result it holds are not run again.
    """
    self._store = store
    self._tools = {tool.name: tool for tool in tools}
    self._config = config
    self._syntax = syntax
    self._closed = False
    self._lock = threading.Lock()
    self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
    self.counts = {name: ToolCounts() for name in self._tools}
    for _ in range(config.workers):
      _start_thread(self._work)

  @property
  def tool_names(self) -> list[str]:
    """What the tools are called."""
    return list(self._tools)

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
    return self.submit_all([request])[0]

  def submit_call(self, tool: str, argument: str, context: Context | None = None
                  ) -> futures.Future[Outcome]:
    """Returns the future Outcome of one call, see `submit`."""
    return self.submit(Request(tool, argument, context or Context()))

  def submit_all(self, requests: Sequence[Request]) -> list[futures.Future[Outcome]]:
    """Returns the future outcomes of `requests`; equal ones are made once.

    Raises:
      UserError, RuntimeError: as `submit`.
    """
    distinct: dict[Request, futures.Future[Outcome]] = {}
    of_tool: dict[str, list[Request]] = {}
    for request in requests:
      if request.tool not in self._tools:
        raise errors.unknown('tool', request.tool, self._tools)
      if request not in distinct:
        distinct[request] = futures.Future()
        of_tool.setdefault(request.tool, []).append(request)
    batches = [some[first:first + self._batch(name)] for name, some in of_tool.items()
               for first in range(0, len(some), self._batch(name))]
    jobs = [_Job(batch, [distinct[request] for request in batch]) for batch in batches]
    with self._lock:
      if self._closed:
        raise RuntimeError('the executor is closed')
      for job in jobs:
        self._waiting.put(job)
    return [distinct[request] for request in requests]

  def _batch(self, name: str) -> int:
    tool = self._tools[name]
    return tool.batch if isinstance(tool, BatchTool) else 1

  def run(self, requests: Iterable[Request]) -> list[Outcome]:
    """Returns the outcomes of `requests`, in their order; raises what `submit` raises."""
    return [future.result() for future in self.submit_all(list(requests))]

  def close(self) -> None:
    """Cancels the calls that have not started, and lets go of the threads of those that have."""
    with self._lock:
      if self._closed:
        return
      self._closed = True
    while not self._waiting.empty():
      self._cancel_one()
    for _ in range(self._config.workers):
      self._waiting.put(None)

  def _cancel_one(self) -> None:
    try:
      for future in self._waiting.get_nowait().futures:
        future.cancel()
    except queue.Empty:
      pass  # A worker was faster.

  def _work(self) -> None:
    """Runs jobs until the executor is closed, or until this thread is abandoned during one."""
    while (job := self._waiting.get()) is not None:
      # All of them, or those that nobody has cancelled.
      wanted = [future.set_running_or_notify_cancel() for future in job.futures]
      job.requests = list(itertools.compress(job.requests, wanted))
      job.futures = list(itertools.compress(job.futures, wanted))
      if job.requests and not self._execute(job):
        return

  def _execute(self, job: _Job) -> bool:
    """Runs `job`; returns whether its outcome was still wanted."""
    tool = self._tools[job.requests[0].tool]
    limit_s = getattr(tool, 'time_limit_s', self._config.time_limit_s) * len(job.requests)
    job.started = time.perf_counter()
    clock = threading.Timer(limit_s, self._abandon, [job, limit_s])
    clock.daemon = True
    clock.start()
    try:
      answers = self._stored(tool, job) or self._call(tool, job.requests)
    except errors.UserError as error:  # not the tool's failure: the store cannot be read
      return self._settle(job, error)
    except BaseException as error:  # Whatever a tool does, a worker lives on.
      answers = [_failure(error)] * len(job.requests)
    finally:
      clock.cancel()
    return self._settle(job, answers)

  def _abandon(self, job: _Job, limit_s: float) -> None:
    """Ends the wait for `job`, which is over its time; another thread takes its worker's place."""
    late = Answer(None, f'{_TIME_LIMIT}: none within {limit_s} seconds', lasting=False)
    if self._settle(job, [late] * len(job.requests)):
      _start_thread(self._work)

  def _stored(self, tool: Tool, job: _Job) -> list[Answer]:
    """Returns the answers in the store; none at all if one is missing, so that batches stay."""
    if not self._store:
      return []
    found = [self._store.find(tool, request.argument, request.context) for request in job.requests]
    return found if all(found) else []

  def _call(self, tool: Tool, requests: Sequence[Request]) -> list[Answer]:
    if self.counts[tool.name].timeouts >= _MAX_HUNG:
      raise TimeoutError(f'given up after {_MAX_HUNG} calls that were over their time')
    if isinstance(tool, BatchTool):
      results = tool.call_many([request.argument for request in requests],
                               [request.context for request in requests])
      if len(results) != len(requests):
        raise TypeError(f'returned {len(results)} results for {len(requests)} calls')
    else:
      results = [tool(requests[0].argument, requests[0].context)]
    return [self._answer(result) for result in results]

  def _answer(self, result: object) -> Answer:
    if isinstance(result, Exception):
      return _failure(result)
    if not isinstance(result, str):
      return _failure(TypeError(f'returned {type(result).__name__}, not a text'))
    start = result.lstrip()[:_SLACK * self._config.max_result_chars]
    # Half a character cannot be written to a file.
    return Answer(start.encode('utf-8', 'replace').decode('utf-8'))

  def _settle(self, job: _Job, answers: Sequence[Answer] | errors.UserError) -> bool:
    """Gives `job` its outcomes and counts them, unless it has some: worker and clock compete."""
    seconds = time.perf_counter() - job.started
    with self._lock:
      if job.settled:
        return False
      job.settled = True
    try:
      if isinstance(answers, errors.UserError):
        raise answers
      outcomes = [self._outcome(job.requests[0].tool, answer, seconds / len(answers))
                  for answer in answers]
      self._keep(job, answers)
    except Exception as error:  # nobody shall wait for ever
      for future in job.futures:
        future.set_exception(error)
      return True
    self._count(job.requests[0].tool, outcomes)
    # A callback of a future may submit the next call: no lock is held.
    for future, outcome in zip(job.futures, outcomes, strict=True):
      future.set_result(outcome)
    return True

  def _keep(self, job: _Job, answers: Sequence[Answer]) -> None:
    """Puts `answers` into the store, if there is one."""
    if self._store:
      self._store.add(self._tools[job.requests[0].tool],
                      [(request.argument, request.context, answer)
                       for request, answer in zip(job.requests, answers, strict=True)])

  def _outcome(self, name: str, answer: Answer, seconds: float) -> Outcome:
    reason, result = answer.reason, None
    if not reason:
      result = self._syntax.clean_result(answer.result, self._config.max_result_chars)
      reason = None if result else 'empty result'
    return Outcome(result or None, reason and f'{name}: {reason}', seconds)

  def _count(self, name: str, outcomes: Sequence[Outcome]) -> None:
    counts = self.counts[name]
    with self._lock:
      for outcome in outcomes:
        counts.calls += 1
        counts.seconds += outcome.seconds
        if outcome.failure:
          counts.failures[outcome.failure.removeprefix(f'{name}: ').partition(':')[0]] += 1


def _start_thread(function: Callable[[], None]) -> None:
  threading.Thread(target=function, name='tool', daemon=True).start()


def _failure(error: BaseException) -> Answer:
  """Returns the answer that says why `error` was raised, on one line that is never blank."""
  is_answer = isinstance(error, ToolError)
  text = str(error) if is_answer else traceback.format_exception_only(error)[-1]
  reason = ' '.join(text[:_MAX_REASON_CHARS].split()) or type(error).__name__
  return Answer(None, reason.encode('utf-8', 'replace').decode('utf-8'), lasting=is_answer)
