"""The thread of the engine counts every request, wherever it is."""

import threading
import time

import pytest

from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.events import RequestFinished
from toolformer_jax.inference.request import GeneratedText
from toolformer_jax.serving.engine_thread import EngineThread, Failed, Job
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.metrics import Metrics


def wait_until(is_so):
  end = time.monotonic() + 20
  while not is_so():
    assert time.monotonic() < end
    time.sleep(0.01)


class BlockingEngine:
  """Takes a request only when it is allowed to, and finishes it in the next step."""

  prefix_cache = None

  def __init__(self, taking, may_take):
    self._taking, self._may_take, self._taken, self._count = taking, may_take, [], 0

  def warm_up(self):
    pass

  def add_request(self, prompt_ids, *arguments, **options):
    self._taking.set()
    assert self._may_take.wait(20)
    if not prompt_ids:
      raise ValueError('there is no prompt')
    self._taken.append(self._count)
    self._count += 1
    return self._taken[-1]

  def step(self):
    taken, self._taken = self._taken, []
    return [RequestFinished(i, GeneratedText([1], 'a', [])) for i in taken]


@pytest.fixture
def taking():
  return threading.Event()


@pytest.fixture
def may_take():
  return threading.Event()


@pytest.fixture
def thread(taking, may_take):
  """A thread whose engine has one slot; one request may wait."""
  started = EngineThread(lambda: BlockingEngine(taking, may_take), slots=1, max_waiting=1,
                         metrics=Metrics('tiny'))
  started.start(lambda call: call())
  wait_until(lambda: started.state != 'starting')
  yield started
  may_take.set()
  started.drain()
  assert started.join(20)


class Asked:
  """A job, its events, and whether it has ended."""

  def __init__(self, prompt_ids=(1,)):
    self.events, self.ended = [], threading.Event()
    self.job = Job(prompt_ids, GenerationConfig(), None, None, False, self._take)

  def _take(self, event):
    self.events.append(event)
    self.ended.set()


def test_a_request_counts_while_the_engine_takes_it(thread, taking, may_take):
  asked = [Asked(), Asked()]
  thread.submit([asked[0].job])
  assert taking.wait(20)
  assert thread.num_unfinished == 1
  thread.submit([asked[1].job])
  assert thread.num_unfinished == 2
  with pytest.raises(ApiError, match='waiting') as refused:
    thread.submit([Asked().job])
  assert refused.value.status == 429
  may_take.set()
  for one in asked:
    assert one.ended.wait(20) and isinstance(one.events[0], RequestFinished)


def test_a_request_that_the_engine_does_not_take_gives_its_place_up(thread, taking, may_take):
  refused, asked = Asked(()), Asked()
  thread.submit([refused.job, asked.job])
  assert taking.wait(20)
  may_take.set()
  assert refused.ended.wait(20) and asked.ended.wait(20)
  assert refused.events == [Failed('there is no prompt', status=400)]
  assert isinstance(asked.events[0], RequestFinished)
  assert thread.num_waiting == 0


def test_a_client_may_leave_while_the_engine_takes_its_request(thread, taking, may_take):
  left, asked = Asked(), Asked()
  thread.submit([left.job])
  assert taking.wait(20)
  thread.submit([asked.job])
  thread.abort([asked.job])
  may_take.set()
  assert left.ended.wait(20)
  wait_until(lambda: not thread.num_unfinished)
  assert asked.events == []
