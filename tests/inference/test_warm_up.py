"""A server's engine compiles everything before its first request, and then nothing any more."""

import random

import jax
import pytest

from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.events import RequestFinished
from toolformer_jax.inference.generation import generate
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.tools.executor import Executor, ExecutorConfig
from toolformer_jax.tools.function import tool

MAX_LENGTH = 500


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(max_positions=4096)


def requests(model, count):
  """Prompts of many lengths, with settings of every kind."""
  rng = random.Random(7)
  for number in range(count):
    size = rng.choice([1, 5, 40, 100, 300])
    prompt = [rng.randrange(256) for _ in range(size)]
    max_tokens = rng.choice([1, 6, 30, 100])
    yield prompt, GenerationConfig(
        max_tokens=max_tokens, seed=number, min_tokens=min(rng.choice([0, 3]), max_tokens),
        temperature=rng.choice([0.0, 0.8]), top_p=rng.choice([1.0, 0.9]),
        top_k_api=rng.choice([1, 10**6]), max_calls=rng.choice([0, 2]), max_call_tokens=20)


def serve(engine, model, count):
  """Adds requests a few at a time while others run; returns the outputs by id.

  Half of them want log-probabilities.
  """
  rng, outputs, left = random.Random(3), {}, list(requests(model, count))
  while left or engine.has_unfinished_requests():
    for _ in range(min(len(left), rng.choice([0, 0, 0, 1, 2, 9]))):
      engine.add_request(*left.pop(), logprobs=len(left) % 2 == 0)
    for event in engine.step():
      if isinstance(event, RequestFinished):
        outputs[event.request_id] = event.output
  return outputs


def test_nothing_is_compiled_after_the_warm_up(model):
  jax.clear_caches()
  config = EngineConfig(slots=4, max_model_len=MAX_LENGTH, few_shapes=True)
  with Executor([tool(lambda argument: 'x' * 90, name='Up')], ExecutorConfig()) as executor:
    engine = Engine(model, config, executor)
    with CompileCounter() as before:
      engine.warm_up()
    assert before.programs > 10
    with CompileCounter() as after:
      outputs = serve(engine, model, 40)
  assert len(outputs) == 40 and after.programs == 0


def test_few_shapes_change_no_text(model):
  some = [(prompt, config) for prompt, config in requests(model, 6)]
  engine = Engine(model, EngineConfig(slots=4, max_model_len=MAX_LENGTH, few_shapes=True))
  numbers = [engine.add_request(*one) for one in some]
  outputs = {}
  while engine.has_unfinished_requests():
    outputs |= {event.request_id: event.output for event in engine.step()
                if isinstance(event, RequestFinished)}
  alone = [generate(model, [prompt], config=config)[0] for prompt, config in some]
  assert [outputs[number] for number in numbers] == alone


def test_an_engine_of_any_shapes_is_not_warmed_up(model):
  with pytest.raises(ValueError, match='few shapes'):
    Engine(model).warm_up()
