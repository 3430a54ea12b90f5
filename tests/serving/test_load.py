"""Many clients at the same time, tools in trouble, clients that leave: nothing is lost or mixed up.
"""

import asyncio
import collections
import dataclasses
import gc
import json
import os
import random
import threading
import time

import httpx2
import jax
import numpy as np
import pytest

from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.engine import Engine, RequestFinished
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.executor import Executor, ExecutorConfig

TIME_LIMIT_S = 0.5
# The date of a request says what becomes of its call.
GOOD, HANG, FAIL, FLOOD = '2001-01-01', '2002-02-02', '2003-03-03', '2004-04-04'


class Up:
  """Answers, hangs, fails or floods."""

  name, version = 'Up', '1'

  def __call__(self, argument, context):
    if context.date == HANG:
      threading.Event().wait(3 * TIME_LIMIT_S)
      return 'late'
    if context.date == FAIL:
      raise ToolError('broken')
    return 'y' * 10**6 if context.date == FLOOD else {'ab': 'XY', 'cd': 'ZW'}.get(argument, 'QR')


@dataclasses.dataclass(frozen=True)
class Ask:
  """A request, and after how many pieces its client leaves; None if it stays."""

  prompt: str
  date: str
  stream: bool
  leaves_after: int | None
  params: GenerationConfig

  def fields(self):
    return {'model': 'tiny', 'prompt': self.prompt, 'date': self.date, 'stream': self.stream,
            'max_tokens': self.params.max_tokens, 'temperature': self.params.temperature,
            'seed': self.params.seed}


def asks(count):
  """A third have tools in trouble, a third of clients leave half-way."""
  rng = random.Random(11)
  for number in range(count):
    trouble = number % 3 == 0
    leaves = rng.choice([0, 1, 2]) if number % 3 == 1 else None
    prompt = rng.choice(['ab is', 'cd is']) if trouble or rng.random() < 0.3 else ''.join(
        rng.choice('abcdefgh ') for _ in range(rng.randrange(1, 60)))
    yield Ask(prompt, rng.choice([HANG, FAIL, FLOOD]) if trouble else GOOD,
              leaves is not None or rng.random() < 0.5, leaves,
              GenerationConfig(max_tokens=rng.choice([6, 20]), top_k_api=1, seed=number,
                               temperature=0.0 if trouble else rng.choice([0.0, 0.9])))


def alone(engine, model, ask):
  """What the request's text is without company."""
  engine.add_request(model.tokenizer.encode(ask.prompt), ask.params, Context(date=ask.date))
  while engine.has_unfinished_requests():
    for event in engine.step():
      if isinstance(event, RequestFinished):
        return event.output.text


async def send(client, ask, times):
  """Sends a request and returns its text; None if its client has left or it was refused."""
  begin = time.perf_counter()
  if not ask.stream:
    response = await client.post('/v1/completions', json=ask.fields())
    while response.status_code == 429:
      await asyncio.sleep(float(response.headers['Retry-After']))
      response = await client.post('/v1/completions', json=ask.fields())
    assert response.status_code == 200, response.text
    return response.json()['choices'][0]['text']
  text, last = '', None
  async with client.stream('POST', '/v1/completions', json=ask.fields()) as response:
    if response.status_code == 429:
      await asyncio.sleep(float(response.headers['Retry-After']))
      return await send(client, ask, times)
    assert response.status_code == 200
    pieces, done = 0, False
    async for line in response.aiter_lines():
      if ask.leaves_after is not None and pieces >= ask.leaves_after:
        return None
      if line.startswith('data: {'):
        choice = json.loads(line[6:])['choices'][0]
        pieces, text, now = pieces + 1, text + choice['text'], time.perf_counter()
        if last is None:
          times['first'].append(now - begin)
        else:
          times['between'].append(now - last)
        last = now
      done = done or line == 'data: [DONE]'
  assert done
  return text


async def storm(url, requests, at_once):
  """Sends all requests, so many at the same time; returns their texts and the times of pieces."""
  times, gate = collections.defaultdict(list), asyncio.Semaphore(at_once)
  limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
  async with httpx2.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
    async def one(ask):
      async with gate:
        return await send(client, ask, times)
    return await asyncio.gather(*map(one, requests)), times


def memory():
  """MiB that this process holds, and the number of arrays of JAX."""
  gc.collect()
  with open('/proc/self/statm') as file:
    pages = int(file.read().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**20, len(jax.live_arrays())


@pytest.mark.parametrize(('count', 'slots', 'rounds'), [
    (60, 4, 2), pytest.param(1000, 16, 4, marks=pytest.mark.long)])
def test_nothing_is_lost_or_mixed_up(serve, taught, count, slots, rounds):
  requests = list(asks(count))
  with Executor([Up()], ExecutorConfig(time_limit_s=TIME_LIMIT_S)) as executor:
    engine = Engine(taught, EngineConfig(slots=1, few_shapes=True), executor)
    texts = {}
    for ask in requests:
      key = dataclasses.replace(ask, stream=False, leaves_after=None)
      if ask.leaves_after is None and key not in texts:
        quick = dataclasses.replace(ask, date=FAIL) if ask.date == HANG else ask
        texts[key] = alone(engine, taught, quick)
  limits = ServingConfig(max_waiting=count // 2)
  with serve(Up(), slots=slots, time_limit_s=TIME_LIMIT_S, limits=limits) as server:
    used = []
    with CompileCounter() as counter:
      for _ in range(rounds):
        begin = time.perf_counter()
        answers, times = asyncio.run(storm(server.url, requests, count))
        seconds = time.perf_counter() - begin
        for ask, answer in zip(requests, answers, strict=True):
          if ask.leaves_after is None:
            assert answer == texts[dataclasses.replace(ask, stream=False)], ask
        server.wait_until_idle()
        used.append(memory())
    assert server.app_state.thread.state == 'ready'
    metrics = httpx2.get(f'{server.url}/metrics').text
  assert counter.programs == 0
  assert used[-1][1] <= used[0][1] and used[-1][0] - used[0][0] < 50
  for gauge in ('running', 'waiting'):
    assert f'vllm:num_requests_{gauge}{{model_name="tiny"}} 0.0' in metrics
  print(f'\n{count} requests at once, {slots} slots: {seconds:.1f} s')
  print('MiB and arrays after each round:', ', '.join(f'{mib:.0f} {n}' for mib, n in used))
  for name, values in times.items():
    print(f'{name}: p50 {np.percentile(values, 50):.3f} s, p99 {np.percentile(values, 99):.3f} s')
