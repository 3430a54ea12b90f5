"""Runs tool calls concurrently and with a time limit. Every call gets an outcome.

Calls to a BatchTool are grouped in the order in which they are given. Which calls share a batch,
and so any rounding in their results, does not depend on timing.
"""

import itertools
import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from typing import Self

from toolformer_jax import errors
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.runtime.validation import check
from toolformer_jax.tools.base import BatchTool, Context, Tool, ToolError
from toolformer_jax.tools.call_store import Answer, CallStore

_MAX_REASON_CHARS = 2000
_MAX_KIND_CHARS = 200  # in reports
# A very long result is cut to this many times its limit before it is cleaned, because cleaning
# removes whitespace.
_SLACK = 8
_TIME_LIMIT = 'time limit'
# A tool is not called while this many of its calls run past their time limit: each occupies a
# thread.
_MAX_HUNG = 50


@dataclass(frozen=True)
class ExecutorConfig:
  """Limits of tool calls, for every command that runs tools.

  Attributes:
    time_limit_s: seconds after which a call is abandoned. A tool may have a `time_limit_s` of its
      own, which takes precedence.
    max_result_chars: longer results are truncated.
    workers: number of threads, that is of calls that run at the same time.
  """

  time_limit_s: float = 10.0
  max_result_chars: int = 600
  workers: int = 8

  def __post_init__(self) -> None:
    check(self, time_limit_s=(0.001, 3600.0), max_result_chars=(1, 100_000), workers=(1, 1000))


@dataclass(frozen=True)
class Request:
  """A call to make: the tool's name, the argument, and the context of the document."""

  tool: str
  argument: str
  context: Context = field(default_factory=Context)


@dataclass(frozen=True)
class Outcome:
  """The outcome of a call: a cleaned result or a failure (`Tool: reason`), and its duration."""

  result: str | None
  failure: str | None
  seconds: float


@dataclass
class ToolCounts:
  """Calls of one tool, their total duration, and the number of failures by kind.

  The kind of a failure is its reason up to the first colon: the message of a ToolError, or the
  name of any other exception.
  """

  calls: int = 0
  seconds: float = 0.0
  failures: Counter[str] = field(default_factory=Counter)


@dataclass
class _Job:
  """Calls of one tool that run as one batch."""

  requests: Sequence[Request]
  futures: Sequence[futures.Future[Outcome]]
  started: float = 0.0
  settled: bool = False


class Executor:
  """Runs calls on threads. Use it as a context manager, or close it.

  A thread cannot be killed. If its call exceeds the time limit, the thread is abandoned, its result
  is ignored, and a new thread takes its place. All threads are daemons, so that none of them keeps
  the program from ending.

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
      tools: the tools that can be called.
      config: limits. A batch has the sum of the time limits of its calls.
      syntax: results are cleaned so that they cannot open or close a call in this syntax.
      store: calls whose result it holds are not run again.

    Raises:
      UserError: the time limit of a tool is not a positive number.
    """
    self._store = store
    self._tools = {tool.name: tool for tool in tools}
    self._config = config
    self._time_limits_s = {name: _time_limit_s(tool, config) for name, tool in self._tools.items()}
    self._syntax = syntax
    self._closed = False
    self._lock = threading.Lock()
    self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
    self.counts = {name: ToolCounts() for name in self._tools}
    self._hung: Counter[str] = Counter()
    for _ in range(config.workers):
      _start_thread(self._work)

  @property
  def tool_names(self) -> list[str]:
    """The names of the tools."""
    return list(self._tools)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def submit(self, request: Request) -> futures.Future[Outcome]:
    """Returns a future Outcome. If the tool fails, that is an outcome and not an exception.

    Raises:
      UserError: there is no such tool.
      RuntimeError: the executor is closed.
    """
    return self.submit_all([request])[0]

  def submit_call(self, tool: str, argument: str, context: Context | None = None
                  ) -> futures.Future[Outcome]:
    """Returns the future Outcome of one call, see `submit`."""
    return self.submit(Request(tool, argument, context or Context()))

  def new_context(self, context: Context | None = None) -> Context:
    """Returns a context for the calls of one text, which are made one after the other.

    What a call adds to its media, later ones can name.
    """
    return context.copy() if context else Context()

  def submit_all(self, requests: Sequence[Request]) -> list[futures.Future[Outcome]]:
    """Returns the future outcomes of `requests`. Equal requests are executed once.

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
    """Returns the outcomes of `requests`, in order. Raises what `submit` raises."""
    return [future.result() for future in self.submit_all(list(requests))]

  def close(self) -> None:
    """Cancels the calls that have not started. Threads end after their current call."""
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
      job = self._waiting.get_nowait()
    except queue.Empty:
      return  # A worker has taken it.
    for future in job.futures if job else ():
      future.cancel()

  def _work(self) -> None:
    """Runs jobs until the executor is closed, or until a job of this thread is abandoned."""
    while (job := self._waiting.get()) is not None:
      # Leaves out the requests that were cancelled.
      wanted = [future.set_running_or_notify_cancel() for future in job.futures]
      job.requests = list(itertools.compress(job.requests, wanted))
      job.futures = list(itertools.compress(job.futures, wanted))
      if job.requests and not self._execute(job):
        return

  def _execute(self, job: _Job) -> bool:
    """Runs `job`. Returns False if it was abandoned in the meantime."""
    tool = self._tools[job.requests[0].tool]
    limit_s = self._time_limits_s[tool.name] * len(job.requests)
    job.started = time.perf_counter()
    clock = threading.Timer(limit_s, self._abandon, [job, limit_s])
    clock.daemon = True
    clock.start()
    try:
      answers = self._stored(tool, job) or self._call(tool, job.requests)
    except errors.UserError as error:  # The store cannot be read, so the run has to stop.
      return self._settle(job, error)
    except BaseException as error:  # Nothing that a tool raises may end the worker thread.
      answers = [_failure(error)] * len(job.requests)
    finally:
      clock.cancel()
    wanted = self._settle(job, answers)
    if not wanted:
      self._count_hung(job, -1)
    return wanted

  def _abandon(self, job: _Job, limit_s: float) -> None:
    """Gives up on `job`, which exceeds its time limit, and replaces its thread."""
    late = Answer(None, f'{_TIME_LIMIT}: no result within {limit_s:g} seconds', lasting=False)
    if self._settle(job, [late] * len(job.requests)):
      self._count_hung(job, 1)
      _start_thread(self._work)

  def _count_hung(self, job: _Job, change: int) -> None:
    with self._lock:
      self._hung[job.requests[0].tool] += change

  def _stored(self, tool: Tool, job: _Job) -> list[Answer]:
    """Returns the stored answers, or none if one is missing, so that batches stay the same."""
    if not self._store:
      return []
    found = [self._store.find(tool, request.argument, request.context) for request in job.requests]
    answers = [answer for answer in found if answer]
    return answers if len(answers) == len(found) else []

  def _call(self, tool: Tool, requests: Sequence[Request]) -> list[Answer]:
    if self._hung[tool.name] >= _MAX_HUNG:
      raise TimeoutError(f'not called while {_MAX_HUNG} calls run past their time limit')
    # Copies: a call that is late must not change the media of its text any more.
    contexts = [request.context.copy() for request in requests]
    if isinstance(tool, BatchTool):
      results = tool.call_many([request.argument for request in requests], contexts)
      if len(results) != len(requests):
        raise TypeError(f'returned {len(results)} results for {len(requests)} calls')
    else:
      results = [tool(requests[0].argument, contexts[0])]
    return [_with_made(self._answer(result), request.context, context)
            for result, request, context in zip(results, requests, contexts, strict=True)]

  def _answer(self, result: object) -> Answer:
    if isinstance(result, Exception):
      return _failure(result)
    if not isinstance(result, str):
      return _failure(TypeError(f'returned {type(result).__name__}, not a string'))
    start = result.lstrip()[:_SLACK * self._config.max_result_chars]
    # A lone surrogate cannot be written to a file.
    return Answer(start.encode('utf-8', 'replace').decode('utf-8'))

  def _settle(self, job: _Job, answers: Sequence[Answer] | errors.UserError) -> bool:
    """Sets and counts the outcomes of `job`. Returns False if it already has outcomes.

    The worker and the timer compete to settle a job.
    """
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
      for request, answer in zip(job.requests, answers, strict=True):
        request.context.media.add_made(answer.made)
    except Exception as error:  # Otherwise the caller would wait forever.
      for future in job.futures:
        future.set_exception(error)
      return True
    self._count(job.requests[0].tool, outcomes)
    # No lock is held here, because a callback of a future may submit the next call.
    for future, outcome in zip(job.futures, outcomes, strict=True):
      future.set_result(outcome)
    return True

  def _keep(self, job: _Job, answers: Sequence[Answer]) -> None:
    """Writes `answers` to the store, if there is one."""
    if self._store:
      self._store.add(self._tools[job.requests[0].tool],
                      [(request.argument, request.context, answer)
                       for request, answer in zip(job.requests, answers, strict=True)])

  def _outcome(self, name: str, answer: Answer, seconds: float) -> Outcome:
    reason, result = answer.reason, None
    if not reason:
      result = self._syntax.clean_result(answer.result or '', self._config.max_result_chars)
      reason = None if result else 'empty result'
    return Outcome(result or None, reason and f'{name}: {reason}', seconds)

  def _count(self, name: str, outcomes: Sequence[Outcome]) -> None:
    counts = self.counts[name]
    with self._lock:
      for outcome in outcomes:
        counts.calls += 1
        counts.seconds += outcome.seconds
        if outcome.failure:
          kind = outcome.failure.removeprefix(f'{name}: ').partition(':')[0]
          counts.failures[kind[:_MAX_KIND_CHARS]] += 1


def _with_made(answer: Answer, before: Context, after: Context) -> Answer:
  """Returns an answer with the media that its call added to the table, if it has a result."""
  made = after.media.made[len(before.media.made):]
  return replace(answer, made=made) if made and answer.result is not None else answer


def _start_thread(function: Callable[[], None]) -> None:
  threading.Thread(target=function, name='tool', daemon=True).start()


def _time_limit_s(tool: Tool, config: ExecutorConfig) -> float:
  """Returns the time limit of one call of `tool`."""
  try:
    limit_s = float(getattr(tool, 'time_limit_s', config.time_limit_s))
  except Exception as error:  # the attribute may be a property of the user's
    raise errors.UserError(f'the time limit of the tool {tool.name} is not a number ({error})'
                           ) from error
  if not 0 < limit_s <= threading.TIMEOUT_MAX:
    raise errors.UserError(f'the time limit of the tool {tool.name} must be positive, not '
                           f'{limit_s:g}')
  return limit_s


def _failure(error: BaseException) -> Answer:
  """Returns an answer with the reason of `error`: one line, not blank."""
  is_answer = isinstance(error, ToolError)
  try:
    text = str(error) if is_answer else traceback.format_exception_only(error)[-1]
  except BaseException:  # `__str__` is the tool's own code.
    text = f'{type(error).__name__}: its message cannot be read'
  reason = ' '.join(text[:_MAX_REASON_CHARS].split()) or type(error).__name__
  return Answer(None, reason.encode('utf-8', 'replace').decode('utf-8'), lasting=is_answer)
