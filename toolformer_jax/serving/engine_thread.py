"""The one thread that owns the engine: it admits requests between steps and hands out events."""

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.events import Event, NewText, RequestFinished, RequestStarted
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.metrics import Metrics, ModelMetrics
from toolformer_jax.tools.base import Context

log = logging.getLogger(__name__)

_RETRY_S = 1
State = Literal['starting', 'ready', 'draining', 'stopped', 'failed']


@dataclass(frozen=True)
class Failed:
  """A request has ended without a text; `status` is the one of HTTP."""

  message: str
  status: int = 500


@dataclass(eq=False)
class Job:
  """A text to generate.

  Attributes:
    prompt_ids, params, context, tool_names, add_start_token, adapter, logprobs: what
      `Engine.add_request` takes.
    on_event: is called with each event, as `deliver` of the thread says.
    request_id: the engine's, once it has a slot.
    arrived, first_text, last_text: times, for the metrics.
  """

  prompt_ids: Sequence[int]
  params: GenerationConfig
  context: Context | None
  tool_names: Sequence[str] | None
  add_start_token: bool
  on_event: Callable[[Event | Failed], None]
  adapter: str | None = None
  logprobs: bool = False
  request_id: int | None = None
  arrived: float = field(default_factory=time.perf_counter)
  first_text: float | None = None
  last_text: float | None = None


class EngineThread:
  """Runs jobs in the order of their arrival, as many at the same time as the engine has slots."""

  def __init__(self, make_engine: Callable[[], Engine], *, slots: int, max_waiting: int,
               metrics: Metrics, warm_up: Callable[[], None] = lambda: None):
    """Prepares the thread; `start` starts it.

    Args:
      make_engine: is called in the thread: at first, and after an error in a step.
      slots: of the engine.
      max_waiting: jobs that may wait for a slot.
      metrics: are kept up to date.
      warm_up: what else has to be done before the server is ready.
    """
    self._make_engine, self._slots, self._max_waiting = make_engine, slots, max_waiting
    self._metrics, self._warm_up = metrics, warm_up
    self._deliver: Callable[[Callable[[], None]], object] = lambda call: call()
    self._changed = threading.Condition()
    self._queue: deque[Job] = deque()
    self._aborted: list[Job] = []
    self._running: dict[int, Job] = {}
    self._state: State = 'starting'
    self._thread = threading.Thread(target=self._run, name='engine', daemon=True)
    for adapter, of_model in metrics.by_adapter.items():
      of_model.running.set_function(functools.partial(self._count, self._running.values, adapter))
      of_model.waiting.set_function(functools.partial(self._count, self._queue.copy, adapter))

  @property
  def state(self) -> State:
    """The state of the thread; jobs are accepted only while it is 'ready'."""
    return self._state

  @property
  def num_waiting(self) -> int:
    """Jobs that wait for a slot."""
    return len(self._queue)

  @property
  def num_running(self) -> int:
    """Jobs that have a slot."""
    return len(self._running)

  @property
  def num_unfinished(self) -> int:
    """Jobs that have a slot or wait for one."""
    with self._changed:
      return len(self._running) + len(self._queue)

  def start(self, deliver: Callable[[Callable[[], None]], object]) -> None:
    """Starts to compile, and then to serve.

    Args:
      deliver: is called in the thread once a step, with a function that hands the events of the
        step to their jobs; it must not block, and may have that function called elsewhere.
    """
    self._deliver = deliver
    self._thread.start()

  def submit(self, jobs: Sequence[Job]) -> None:
    """Puts jobs into the queue, all or none.

    Raises:
      ApiError: the server is not ready, or the queue is full or too short for so many.
    """
    room = self._slots + self._max_waiting
    if len(jobs) > room:
      raise ApiError(400, f'this server takes {room} texts at a time, not {len(jobs)}', param='n',
                     code='invalid_value')
    with self._changed:
      if self._state != 'ready':
        raise self.refusal()
      free = self._slots - len(self._running)
      if len(self._queue) + len(jobs) > self._max_waiting + free:
        raise ApiError(429, f'{len(self._queue)} requests are waiting already; try again later',
                       code='queue_full', retry_after_s=_RETRY_S)
      self._queue.extend(jobs)
      self._changed.notify()

  def refusal(self) -> ApiError:
    """Returns the error for a request that cannot be accepted now."""
    return ApiError(503, f'the server is {self._state}; try again later',
                    code='service_unavailable', retry_after_s=5)

  def abort(self, jobs: Sequence[Job]) -> None:
    """Ends jobs whose client has gone; slots are free after the step that runs. No event follows.
    """
    with self._changed:
      self._aborted.extend(jobs)
      self._changed.notify()

  def drain(self) -> None:
    """Takes no further job; the thread ends once all jobs have ended."""
    with self._changed:
      if self._state in ('starting', 'ready'):
        self._state = 'draining'
      self._changed.notify()

  def stop(self) -> None:
    """Ends the thread after the step that runs, and all jobs without a result."""
    with self._changed:
      if self._state != 'failed':
        self._state = 'stopped'
      self._changed.notify()

  def join(self, timeout_s: float | None) -> bool:
    """Waits for the end of the thread; returns whether it has ended."""
    if self._thread.is_alive():
      self._thread.join(timeout_s)
    return not self._thread.is_alive()

  def _run(self) -> None:
    try:
      engine = self._warm_engine()
      with self._changed:
        if self._state == 'starting':
          self._state = 'ready'
      while self._wait():
        engine = self._step(engine)
      self._fail('the server has stopped', status=503)
    except BaseException as error:
      log.exception('the engine has failed')
      with self._changed:
        self._state = 'failed'
      self._fail('the server has failed')
      if not isinstance(error, Exception):
        raise

  def _warm_engine(self) -> Engine:
    """Returns an engine whose programs are compiled."""
    begin = time.perf_counter()
    with CompileCounter() as compiled:
      engine = self._make_engine()
      engine.warm_up()
      self._warm_up()
    seconds = time.perf_counter() - begin
    self._metrics.warm_up_s.set(seconds)
    log.info('ready after %.1f s: %d programs, %d of them from the compilation cache', seconds,
             compiled.programs, compiled.cached)
    return engine

  def _wait(self) -> bool:
    """Waits for something to do; returns False once there will be nothing any more."""
    with self._changed:
      while not (self._queue or self._running or self._aborted or self._state != 'ready'):
        self._changed.wait()
      if self._state == 'draining':
        return bool(self._queue or self._running)
      return self._state == 'ready'

  def _step(self, engine: Engine) -> Engine:
    """Admits, steps, and hands out the events; returns the engine, or another after an error."""
    try:
      self._admit(engine)
      events = engine.step()
    except Exception as error:  # out of memory, or a bug: the engine's state is unknown
      log.exception('a step has failed; %d requests are lost', len(self._running))
      self._fail(str(error) if isinstance(error, UserError) else 'a step of the engine has failed',
                 waiting=False)
      return self._make_engine()
    now = time.perf_counter()
    # Counted first: a client that has its whole text must not see its request as running.
    handed = [(self._observe(event, now), event) for event in events]
    self._hand_out(handed)
    return engine

  def _admit(self, engine: Engine) -> None:
    """Gives up aborted jobs, and gives free slots to those that wait.

    A job leaves the queue only when it has its slot, so that `submit` counts it all the time.
    """
    self._give_up_aborted(engine)
    while self._queue and len(self._running) < self._slots:
      job = self._queue[0]
      failed = _add_request(engine, job)
      with self._changed:
        self._queue.popleft()
        if job.request_id is not None:
          self._running[job.request_id] = job
      if failed:
        self._metrics_of(job).observe_end(job.arrived, 'error')
        self._hand_out([(job, failed)])
      else:
        self._metrics_of(job).observe_slot(job.arrived, len(job.prompt_ids))

  def _give_up_aborted(self, engine: Engine) -> None:
    with self._changed:
      aborted, self._aborted = self._aborted, []
      for job in aborted:
        if job in self._queue:
          self._queue.remove(job)
        elif job.request_id is not None and self._running.get(job.request_id) is job:
          engine.abort(job.request_id)
          del self._running[job.request_id]
        else:  # it has ended by itself
          continue
        self._metrics_of(job).observe_end(job.arrived, 'abort')

  def _observe(self, event: Event, now: float) -> Job:
    """Counts an event; returns the job that it belongs to."""
    job = self._running[event.request_id]
    metrics = self._metrics_of(job)
    match event:
      case RequestStarted(num_prompt_tokens=prompt, num_cached_tokens=cached):
        if cached is not None:
          metrics.observe_prefix_cache(prompt, cached)
      case NewText():
        metrics.observe_text(job.arrived, job.last_text, now)
        job.first_text, job.last_text = job.first_text or now, now
      case RequestFinished(output=output):
        with self._changed:
          del self._running[event.request_id]
        metrics.observe_tokens(job.first_text, len(output.token_ids), now)
        metrics.observe_end(job.arrived, output.finish_reason)
    return job

  def _hand_out(self, events: Sequence[tuple[Job, Event | Failed]]) -> None:
    def call() -> None:
      for job, event in events:
        job.on_event(event)
    if events:
      self._deliver(call)

  def _fail(self, message: str, waiting: bool = True, status: int = 500) -> None:
    """Ends the jobs that run, and those that wait too if `waiting`."""
    with self._changed:
      failed = [*self._running.values(), *(self._queue if waiting else ())]
      self._running.clear()
      if waiting:
        self._queue.clear()
    for job in failed:
      self._metrics_of(job).observe_end(job.arrived, 'error')
    self._hand_out([(job, Failed(message, status)) for job in failed])

  def _metrics_of(self, job: Job) -> ModelMetrics:
    return self._metrics.by_adapter[job.adapter]

  def _count(self, jobs: Callable[[], Collection[Job]], adapter: str | None) -> int:
    """Returns how many of the jobs that run, or of those that wait, are for an adapter."""
    with self._changed:
      return sum(job.adapter == adapter for job in jobs())


def _add_request(engine: Engine, job: Job) -> Failed | None:
  """Adds the request of a job; returns why the engine did not take it, which costs no other one."""
  try:
    job.request_id = engine.add_request(
        job.prompt_ids, job.params, job.context, tool_names=job.tool_names,
        add_start_token=job.add_start_token, adapter=job.adapter, logprobs=job.logprobs)
  except (UserError, ValueError) as error:
    return Failed(str(error), status=400)
  except Exception:
    log.exception('a request was not admitted')
    return Failed('the engine could not take the request')
  return None
