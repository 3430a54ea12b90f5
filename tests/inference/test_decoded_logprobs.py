"""The engine's log-probabilities are those of the finished text, scored at once."""

import random

import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.events import NewText, RequestFinished
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.prefix_cache import PrefixCache
from toolformer_jax.inference.token_logprobs import TextOffsets
from toolformer_jax.inference.top_logprobs import top_logprobs
from toolformer_jax.tools.base import ToolError
from toolformer_jax.tools.executor import Executor, ExecutorConfig
from toolformer_jax.tools.function import tool

# Calls start at once, or not at all: the model is random, and has learned none.
PARAMS = [GenerationConfig(max_tokens=12, disable_tools=True),
          GenerationConfig(max_tokens=9, temperature=0.9, seed=3),
          GenerationConfig(max_tokens=11, min_tokens=11, temperature=1.3, top_p=0.8, seed=4),
          GenerationConfig(max_tokens=8, top_k_api=10**6, max_calls=2, max_call_tokens=9),
          GenerationConfig(max_tokens=30, temperature=1.5, seed=8, stop=('a', 'e', '1'))]


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(max_positions=512)


def prompts(count):
  rng = random.Random(5)
  return [[rng.randrange(250) for _ in range(rng.choice([1, 7, 70, 150]))] for _ in range(count)]


def told(engine, requests, logprobs):
  """Returns the output of each request, and the events with its text."""
  numbers = [engine.add_request(prompt, params, logprobs=wanted)
             for (prompt, params), wanted in zip(requests, logprobs, strict=True)]
  outputs, texts = {}, {number: [] for number in numbers}
  while engine.has_unfinished_requests():
    for event in engine.step():
      if isinstance(event, NewText):
        texts[event.request_id].append(event)
      elif isinstance(event, RequestFinished):
        outputs[event.request_id] = event.output
  return [(outputs[number], texts[number]) for number in numbers]


def check(model, prompt, output, texts):
  """Compares the log-probabilities of a text with those of `top_logprobs`."""
  start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
  expected = top_logprobs(model, [*start, *prompt, *output.token_ids])[len(start) + len(prompt):]
  offsets = TextOffsets(model.tokenizer)
  begins = [offsets.add(token) for token in output.token_ids]
  assert ''.join(event.text for event in texts) == output.text
  end = first = 0
  for event in texts:
    end += len(event.text)
    of_piece = [i for i, at in enumerate(begins) if i >= first and at < end]
    assert [one.token for one in event.logprobs] == [output.token_ids[i] for i in of_piece]
    for i, one in zip(of_piece, event.logprobs, strict=True):
      assert one.logprob == pytest.approx(expected[i].logprob, abs=1e-4)
      np.testing.assert_allclose([value for _, value in one.top],
                                 [value for _, value in expected[i].top], atol=1e-4)
      assert dict(one.top).get(one.token, one.logprob) == pytest.approx(one.logprob, abs=1e-5)
    first += len(of_piece)
  return first


@pytest.mark.parametrize('devices', [1, 8])
def test_they_are_those_of_the_scored_text(make_model, devices):
  mesh = sharding.make_mesh(2, 2, 2) if devices == 8 else None
  model = make_model(mesh, max_positions=512)
  requests = [(prompt, PARAMS[i % len(PARAMS)]) for i, prompt in enumerate(prompts(20))]
  engine = Engine(model, EngineConfig(slots=8), prefix_cache=PrefixCache(2**30))
  seen = told(engine, requests, [True] * len(requests))
  counts = [check(model, prompt, *one) for (prompt, _), one in zip(requests, seen, strict=True)]
  assert sum(counts) > 100


@pytest.mark.parametrize('result', ['XY', 'é ü 漢', 'of many tokens ' * 4, None])
@pytest.mark.parametrize('slots', [1, 6])
def test_calls_and_results_have_them_too(taught, slots, result):
  def answer(argument):
    if result is None:
      raise ToolError('none')
    return result
  params = GenerationConfig(max_tokens=6, top_k_api=1, max_calls=2)
  requests = [(taught.tokenizer.encode(text), params) for text in ('ab is', 'xy', 'cd is')]
  with Executor([tool(answer, name='Up')], ExecutorConfig()) as executor:
    seen = told(Engine(taught, EngineConfig(slots), executor), requests, [True] * 3)
    plain = told(Engine(taught, EngineConfig(slots), executor), requests, [False] * 3)
  assert [output for output, _ in seen] == [output for output, _ in plain]
  for (ids, _), (output, texts) in zip(requests, seen, strict=True):
    assert check(taught, ids, output, texts) == len(output.token_ids)
    calls = [made for made in output.calls if made.failure is None]
    assert sum(event.is_call for event in texts) == len(calls)
  assert seen[0][0].calls[0].call.result == (result and result.strip())


def test_texts_are_the_same_with_and_without(model):
  requests = [(prompt, PARAMS[i % len(PARAMS)]) for i, prompt in enumerate(prompts(20))]
  wanted = [i % 3 == 0 for i in range(len(requests))]
  seen = told(Engine(model, EngineConfig(slots=8)), requests, wanted)
  plain = told(Engine(model, EngineConfig(slots=8)), requests, [False] * len(requests))
  assert [output for output, _ in seen] == [output for output, _ in plain]
  for want, (_, texts), (output, _) in zip(wanted, seen, plain, strict=True):
    assert any(event.logprobs for event in texts) == (want and bool(output.text))
  alone, = generate(model, [requests[0][0]], config=requests[0][1])
  assert seen[0][0] == alone
