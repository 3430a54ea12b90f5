"""The prefix cache changes no text: it holds what prefill would compute again."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.events import RequestFinished, RequestStarted
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.prefill import Chunk, prefill
from toolformer_jax.inference.prefix_cache import BLOCK_TOKENS, PrefixCache
from toolformer_jax.models.kv_cache import KVCache, new_cache
from toolformer_jax.runtime.compile_counter import CompileCounter

PARAMS = GenerationConfig(max_tokens=8)


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(max_positions=1024)


def tokens(seed, size):
  return np.random.default_rng(seed).integers(0, 250, size).tolist()


def serve(engine, prompts):
  """Returns the texts, and how many tokens of the prompts there were and were in the cache."""
  numbers = [engine.add_request(prompt, PARAMS) for prompt in prompts]
  outputs, started = {}, []
  while engine.has_unfinished_requests():
    events = engine.step()
    outputs |= {event.request_id: event.output for event in events
                if isinstance(event, RequestFinished)}
    started += [(event.num_prompt_tokens, event.num_cached_tokens) for event in events
                if isinstance(event, RequestStarted)]
  return [outputs[number] for number in numbers], started


def test_texts_are_the_same_and_hits_are_counted(model):
  shared = tokens(0, 2 * BLOCK_TOKENS + 20)
  prompts = [shared + tokens(seed, size) for seed, size in ((1, 1), (2, 30), (3, 200))]
  expected = [generate(model, [prompt], config=PARAMS)[0] for prompt in prompts]
  engine = Engine(model, EngineConfig(slots=4), prefix_cache=PrefixCache(2**30))
  sizes = [len(prompt) + (model.tokenizer.start_id is not None) for prompt in prompts]
  assert serve(engine, prompts[:1]) == (expected[:1], [(sizes[0], 0)])
  assert serve(engine, prompts) == (expected, [(size, 2 * BLOCK_TOKENS) for size in sizes])
  texts, started = serve(engine, prompts[::-1])  # the blocks of the third are there, too
  assert texts == expected[::-1]
  assert sum(cached for _, cached in started) > 3 * 2 * BLOCK_TOKENS


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize('layout', ['stacked', 'per_layer'])
def test_a_restored_row_holds_what_prefill_would_write(make_model, devices, layout):
  mesh = sharding.make_mesh(2, 2, 2) if devices == 8 else sharding.make_mesh(
      devices=jax.devices()[:1])
  model = make_model(mesh, max_positions=512, heads=4, kv_heads=2)
  prompt, prefixes = tokens(5, 3 * BLOCK_TOKENS), PrefixCache(2**30)
  with jax.set_mesh(mesh):
    cache = prefill(model, new_cache(model.config, 8, 256, layout), [Chunk(2, 0, prompt[:-1])])
    prefixes.store(cache, 2, prompt)
    other, count = prefixes.restore(new_cache(model.config, 8, 64, layout), 5, prompt)
    assert count == 2 * BLOCK_TOKENS and other.slots >= count  # the last token is never restored
    expected, restored = (one.to_layout('stacked').take(jnp.array([row]))
                          for one, row in ((cache, 2), (other, 5)))
    np.testing.assert_array_equal(restored.keys[..., :count], expected.keys[..., :count])
    np.testing.assert_array_equal(restored.values[..., :count, :], expected.values[..., :count, :])
    untouched = other.to_layout('stacked').take(jnp.arange(5))
    assert not np.asarray(untouched.keys).any() and not np.asarray(untouched.values).any()


def test_a_block_is_found_only_after_the_same_tokens(model):
  prompt, prefixes = tokens(7, 3 * BLOCK_TOKENS + 1), PrefixCache(2**30)
  empty = KVCache.empty(model.config, 1, 256)
  prefixes.store(empty, 0, prompt)
  def found(other):
    return prefixes.restore(KVCache.empty(model.config, 1, 256), 0, other)[1]
  assert found(prompt) == 3 * BLOCK_TOKENS
  assert found(prompt[:-1]) == 2 * BLOCK_TOKENS
  assert found([prompt[0] + 1, *prompt[1:]]) == 0  # all later blocks have another beginning
  assert found([*prompt[:100], prompt[100] + 1, *prompt[101:]]) == BLOCK_TOKENS
  assert found(prompt[BLOCK_TOKENS:]) == 0


def test_the_budget_is_kept_and_the_last_used_stay(model):
  empty = KVCache.empty(model.config, 1, BLOCK_TOKENS)
  block = sum(array.nbytes for array in (empty.keys, empty.values)) + 4
  prompts = [tokens(seed, BLOCK_TOKENS + 1) for seed in range(3)]
  def found(prefixes, prompt):
    return prefixes.restore(KVCache.empty(model.config, 1, BLOCK_TOKENS), 0, prompt)[1] > 0
  prefixes = PrefixCache(2 * block)
  for prompt in prompts[:2]:
    prefixes.store(empty, 0, prompt)
  assert found(prefixes, prompts[0])  # used after the second
  prefixes.store(empty, 0, prompts[2])
  assert [found(prefixes, prompt) for prompt in prompts] == [True, False, True]
  small = PrefixCache(block - 1)
  small.store(empty, 0, prompts[0])
  assert not found(small, prompts[0])


def test_of_a_long_beginning_the_end_is_dropped_first(model):
  empty = KVCache.empty(model.config, 1, 4 * BLOCK_TOKENS)
  block = sum(array.nbytes for array in (empty.keys, empty.values)) // 4 + 4
  prefixes, prompt = PrefixCache(3 * block), tokens(1, 3 * BLOCK_TOKENS + 1)
  prefixes.store(empty, 0, prompt)
  prefixes.restore(KVCache.empty(model.config, 1, 256), 0, prompt)
  prefixes.store(empty, 0, tokens(2, BLOCK_TOKENS + 1))
  assert prefixes.restore(KVCache.empty(model.config, 1, 256), 0, prompt)[1] == 2 * BLOCK_TOKENS


def test_nothing_is_compiled_after_the_warm_up(model):
  jax.clear_caches()
  engine = Engine(model, EngineConfig(slots=4, max_model_len=400, few_shapes=True),
                  prefix_cache=PrefixCache(2**30))
  engine.warm_up()
  rng, beginnings = random.Random(2), [tokens(seed, 200) for seed in range(3)]
  hits = 0
  with CompileCounter() as after:
    for _ in range(12):
      prompts = [rng.choice(beginnings)[:rng.randrange(1, 200)] + tokens(9, rng.randrange(99))
                 or [1] for _ in range(rng.randrange(1, 6))]
      hits += sum(cached for _, cached in serve(engine, prompts)[1])
  assert after.programs == 0 and hits > 0
