"""Each row of a batch has an adapter of its own, and is what that adapter alone makes of it."""

import dataclasses

import jax
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.continuation_scoring import score_continuations
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.events import RequestFinished
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.prefix_cache import BLOCK_TOKENS, PrefixCache
from toolformer_jax.inference.scoring import score_texts
from toolformer_jax.models.adapter_config import AdaLoraConfig, Ia3Config, LoraConfig
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.adapter_stack import stack_adapters, with_adapter
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.tools.executor import Executor, ExecutorConfig
from toolformer_jax.tools.function import tool
from toolformer_jax.training.adapters import add_adapter
from toolformer_jax.training.config import FinetuneConfig

CONFIGS = {
    'small': LoraConfig(rank=2, alpha=6.0, target_modules=('query', 'down')),
    'wide': LoraConfig(rank=5, alpha=5.0, rank_pattern={'value': 3}, alpha_pattern={'up': 9.0}),
    'chosen': AdaLoraConfig(init_rank=4, target_rank=2)}
NAMES = [None, 'small', 'wide', 'chosen', 'wide', None, 'small', 'chosen']
PARAMS = GenerationConfig(max_tokens=12, temperature=1.0)


def tokens(seed, size):
  return np.random.default_rng(seed).integers(0, 250, size).tolist()


PROMPTS = [tokens(seed, size) for seed, size in enumerate([1, 9, 40, 80, 7, 9, 100, 30])]


def tuned_from(base, config, seed):
  """Returns `base` with random weights of an adapter."""
  model, rng = add_adapter(base, FinetuneConfig(adapter=config)), np.random.default_rng(seed)
  weights = jax.tree.map(
      lambda x: jax.device_put((x + rng.normal(0, 0.2, x.shape)).astype(np.float32), x.sharding),
      model.variables[ADAPTER])
  return dataclasses.replace(model, variables=model.variables | {ADAPTER: weights})


def variants(base):
  """Returns a model for each adapter alone, by its name; the base itself by None."""
  return {None: base} | {name: tuned_from(base, config, seed)
                         for seed, (name, config) in enumerate(CONFIGS.items())}


def stack_of(alone):
  return stack_adapters(alone[None], {name: one for name, one in alone.items() if name})


@pytest.fixture(scope='module')
def alone(make_model):
  return variants(make_model(max_positions=512))


@pytest.fixture(scope='module')
def stack(alone):
  return stack_of(alone)


def texts_of(model, **options):
  return generate(model, PROMPTS, config=PARAMS, seeds=range(len(PROMPTS)), **options)


def text_of(model, number, **options):
  """Returns the continuation of one prompt, which is in no batch."""
  return generate(model, [PROMPTS[number]], config=PARAMS, seeds=[number], **options)[0]


@pytest.fixture(scope='module')
def expected(alone):
  """What each row's adapter makes of its prompt, alone."""
  return [text_of(alone[name], number) for number, name in enumerate(NAMES)]


@pytest.mark.parametrize('slots', [1, 3, 8])
def test_each_row_is_what_its_adapter_alone_makes_of_it(stack, expected, slots):
  made = texts_of(stack, adapters=NAMES, engine_config=EngineConfig(slots))
  assert made == expected
  assert len({tuple(text.token_ids) for text in expected}) > 4


def test_a_merged_adapter_makes_the_same_texts(alone, expected):
  for number, name in enumerate(NAMES):
    assert text_of(merge_adapter(alone[name]), number) == expected[number]


def test_texts_do_not_depend_on_what_is_beside_them(stack, expected):
  order = [5, 2, 7, 0, 3]
  made = generate(stack, [PROMPTS[i] for i in order], config=PARAMS, seeds=order,
                  adapters=[NAMES[i] for i in order])
  assert made == [expected[i] for i in order]


@pytest.mark.parametrize('shape', [(8, 1, 1), (1, 4, 2)])
def test_eight_devices_make_the_same_texts(make_model, expected, shape):
  mesh = sharding.make_mesh(*shape, devices=jax.devices()[:8])
  assert texts_of(stack_of(variants(make_model(mesh, max_positions=512))),
                  adapters=NAMES) == expected


@pytest.mark.parametrize('name', [None, *CONFIGS])
def test_the_active_adapter_scores_as_it_does_alone(alone, stack, name):
  chosen, labels = with_adapter(stack, name), [tokens(50, 3), tokens(51, 2)]
  texts = [stack.tokenizer.decode(prompt) for prompt in PROMPTS[2:5]]
  for ours, theirs in zip(score_texts(chosen, texts), score_texts(alone[name], texts),
                          strict=True):
    assert ours['token_ids'] == theirs['token_ids']
    np.testing.assert_allclose(ours['logprobs'][1:], theirs['logprobs'][1:], rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(score_continuations(chosen, PROMPTS, labels),
                             score_continuations(alone[name], PROMPTS, labels), atol=1e-4)


def test_bfloat16_rounds_as_much_as_the_adapter_alone(make_bfloat16, alone, stack):
  # Not the same sums, so that a token may be another one where two are as likely.
  rounded = variants(make_bfloat16('products', max_positions=512))
  rounded_stack, texts = stack_of(rounded), [stack.tokenizer.decode(one) for one in PROMPTS[2:5]]
  def logprobs(model):
    return np.concatenate([text['logprobs'][1:] for text in score_texts(model, texts)])
  def distance(one, other):
    return np.abs(one - other).mean()
  for name in CONFIGS:
    exact, found = logprobs(alone[name]), logprobs(with_adapter(rounded_stack, name))
    assert distance(found, exact) < 1.2 * distance(logprobs(rounded[name]), exact)
    assert distance(found, exact) < 0.5 * distance(exact, logprobs(alone[None]))


def test_another_active_adapter_compiles_nothing(stack):
  def work(name):
    chosen = with_adapter(stack, name)
    score_texts(chosen, ['one text'])
    return texts_of(chosen)
  work('small')
  with CompileCounter() as after:
    assert work('wide') == texts_of(stack, adapters=['wide'] * len(PROMPTS))
  assert after.programs == 0


def serve(engine, requests):
  numbers = [engine.add_request(prompt, params, adapter=name) for prompt, params, name in requests]
  outputs = {}
  while engine.has_unfinished_requests():
    outputs |= {event.request_id: event.output for event in engine.step()
                if isinstance(event, RequestFinished)}
  return [outputs[number] for number in numbers]


def test_nothing_is_compiled_after_the_warm_up(stack):
  jax.clear_caches()
  params = GenerationConfig(max_tokens=20, top_k_api=10**6, max_call_tokens=8, temperature=0.7)
  with Executor([tool(lambda argument: 'x' * 90, name='Up')], ExecutorConfig()) as executor:
    engine = Engine(stack, EngineConfig(slots=4, max_model_len=400, few_shapes=True), executor,
                    prefix_cache=PrefixCache(2**30))
    engine.warm_up()
    with CompileCounter() as after:
      for names in (NAMES, NAMES[::-1]):
        serve(engine, [(prompt, params, name)
                       for prompt, name in zip(PROMPTS, names, strict=True)])
  assert after.programs == 0


def test_a_prefix_is_cached_for_each_adapter(alone, stack):
  prompt = tokens(9, 2 * BLOCK_TOKENS + 5)
  engine = Engine(stack, EngineConfig(slots=4), prefix_cache=PrefixCache(2**30))
  for hits in (0, 2 * BLOCK_TOKENS):
    for name, model in alone.items():
      expected, = generate(model, [prompt], config=PARAMS)
      engine.add_request(prompt, PARAMS, adapter=name)
      started, *_ = engine.step()
      assert started.num_cached_tokens == hits
      *_, finished = (event for _ in iter(engine.has_unfinished_requests, False)
                      for event in engine.step())
      assert finished.output == expected


def test_int8_makes_the_texts_of_each_adapter_alone(alone, stack):
  made = texts_of(stack.to_dtype('int8'), adapters=NAMES)
  for number, name in enumerate(NAMES[:4]):
    assert text_of(alone[name].to_dtype('int8'), number) == made[number]


def test_what_cannot_be_used_is_refused(alone, stack, make_model):
  base = alone[None]
  with pytest.raises(UserError, match="unknown adapter 'tall'"):
    texts_of(stack, adapters=['tall'] * 8)
  with pytest.raises(UserError, match='no adapters with names'):
    texts_of(base, adapters=['small'] * 8)
  with pytest.raises(UserError, match='as many adapters as prompts: 8, not 1'):
    texts_of(stack, adapters=['small'])
  with pytest.raises(UserError, match='only LoRA and AdaLoRA'):
    stack_adapters(base, {'scales': tuned_from(base, Ia3Config(), 0)})
  with pytest.raises(UserError, match='has an adapter of its own'):
    stack_adapters(alone['wide'], {'small': alone['small']})
  with pytest.raises(UserError, match='empty name'):
    stack_adapters(base, {' ': alone['small']})
  with pytest.raises(UserError, match='cannot be merged'):
    merge_adapter(stack)
