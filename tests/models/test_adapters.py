"""Adapters do not change a model before they are trained, and compute the same everywhere."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  BottleneckConfig,
  Ia3Config,
  LoraConfig,
  PrefixConfig,
)
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.kv_cache import KVCache
from toolformer_jax.training.adapters import add_adapter
from toolformer_jax.training.config import FinetuneConfig

TOKENS = jnp.array(np.random.default_rng(0).integers(0, 250, (4, 9)))
MERGEABLE = {
    'lora': LoraConfig(rank=3, alpha=5.0, target_modules=('query', 'out', 'down'),
                       rank_pattern={'out': 2}, alpha_pattern={'down': 7.0}),
    'adalora': AdaLoraConfig(init_rank=4, target_rank=2),
    'ia3': Ia3Config(target_modules=('key', 'value', 'out', 'down'),
                     feedforward_modules=('out', 'down'))}
ADAPTERS = MERGEABLE | {
    'houlsby': BottleneckConfig(placement='houlsby', reduction_factor=8.0),
    'pfeiffer': BottleneckConfig(reduction_factor=8.0),
    'prefix': PrefixConfig(num_virtual_tokens=3)}
FAMILIES = {
    'llama': {}, 'untied': dict(tied_head=False),
    'gemma3': dict(qk_norm=True, activation='gelu_tanh', sandwich_norm=True, norm_offset=True,
                   scaled_embedding=True, sliding_window=5, global_every=2),
    'gpt2': dict(norm='layer', gated_mlp=False, kv_heads=4, activation='gelu_tanh', mlp_bias=True,
                 positions='learned', rotary_dim=0, qkv_bias=True, out_bias=True),
    'gptj': dict(norm='layer', gated_mlp=False, kv_heads=4, activation='gelu_tanh', mlp_bias=True,
                 positions='rotary_interleaved', rotary_dim=4, parallel_block=True,
                 tied_head=False, head_bias=True)}


def logits(model, tokens=TOKENS, **options):
  with jax.set_mesh(model.mesh):
    return np.asarray(_apply(model.decoder, model.variables, tokens, **options)[0])


@functools.partial(jax.jit, static_argnums=0)
def _apply(decoder, variables, tokens, **options):
  return decoder.apply(variables, tokens, **options)


def shaken(model):
  """Returns the model with random weights of its adapter."""
  rng = np.random.default_rng(2)
  weights = jax.tree.map(
      lambda x: jax.device_put((x + rng.normal(0, 0.2, x.shape)).astype(np.float32), x.sharding),
      model.variables[ADAPTER])
  return dataclasses.replace(model, variables=model.variables | {ADAPTER: weights})


@pytest.mark.parametrize(('family', 'kind'), [
  *(('untied', kind) for kind in ADAPTERS), ('gptj', 'pfeiffer')])
def test_a_new_adapter_changes_nothing_and_a_trained_one_does(make_model, family, kind):
  base = make_model(**FAMILIES[family])
  model = add_adapter(base, FinetuneConfig(adapter=ADAPTERS[kind]))
  expected = logits(base)
  if kind != 'prefix':
    # Bit-equal but where XLA fuses the two programs differently.
    np.testing.assert_allclose(logits(model), expected, rtol=1e-6)
  assert np.abs(logits(shaken(model)) - expected).max() > 1e-2


@pytest.mark.parametrize(('family', 'kind'), [
  ('llama', 'adalora'), ('llama', 'ia3'), ('llama', 'houlsby'), ('gemma3', 'prefix')])
def test_all_ways_to_run_a_model_agree(make_model, family, kind):
  model = make_model(adapter=ADAPTERS[kind], **FAMILIES[family])
  expected = logits(model)
  def close(got):
    np.testing.assert_allclose(got, expected, atol=2e-5)
  close(logits(make_model(sharding.make_mesh(2, 2, 2), adapter=ADAPTERS[kind],
                          **FAMILIES[family])))
  packed = TOKENS.reshape(1, -1)
  segments, positions = np.divmod(np.arange(packed.size), TOKENS.shape[1])
  close(logits(model, packed, segment_ids_BT=segments[None], positions_BT=positions[None]).reshape(
      expected.shape))
  unrolled = model.with_unrolled_layers()
  step = jax.jit(unrolled.decoder.apply)
  cache, pieces = KVCache.empty(model.config, len(TOKENS), 16).to_layout('per_layer'), []
  for at in range(0, TOKENS.shape[1], 3):
    piece, cache = step(unrolled.variables, TOKENS[:, at:at + 3], cache=cache)
    pieces.append(piece)
  close(np.concatenate(pieces, 1))


@pytest.mark.parametrize('kind', MERGEABLE)
def test_merged_once_is_merged_twice(make_model, kind):
  model = make_model(adapter=MERGEABLE[kind], **FAMILIES['gpt2'])  # it has biases
  merged = merge_adapter(model)
  assert merged.config.adapter is None and merged.variables.keys() == {'params'}
  np.testing.assert_allclose(logits(merged), logits(model), rtol=1e-5)
  again = merge_adapter(merged)
  jax.tree.map(np.testing.assert_array_equal, again.variables, merged.variables)


@pytest.mark.parametrize('kind', ['houlsby', 'pfeiffer', 'prefix'])
def test_what_cannot_be_merged_is_refused(make_model, kind):
  with pytest.raises(UserError, match='cannot be merged'):
    merge_adapter(make_model(adapter=ADAPTERS[kind]))


def test_the_weights_are_those_of_the_named_modules(make_model):
  weights = make_model(adapter=MERGEABLE['lora']).variables[ADAPTER]['blocks']
  assert weights.keys() == {'attention', 'mlp'}
  assert weights['attention'].keys() == {'query', 'out'} and weights['mlp'].keys() == {'down'}
  assert weights['attention']['query']['a'].shape == (2, 32, 3)
  assert weights['attention']['out']['b'].shape == (2, 2, 32)


@pytest.mark.parametrize('adapter', [
  LoraConfig(target_modules=('q_proj',)), LoraConfig(rank_pattern={'keys': 2}),
  AdaLoraConfig(target_modules=('head',)), Ia3Config(target_modules=('gate', 'downs'),
                                                     feedforward_modules=())])
def test_an_unknown_module_is_refused(make_model, adapter):
  with pytest.raises(UserError, match='unknown module of') as refused:
    make_model(adapter=adapter)
  assert '\n' not in str(refused.value)


def test_a_model_without_gates_has_no_module_of_that_name(make_model):
  with pytest.raises(UserError, match="unknown module of LoraConfig 'gate'"):
    make_model(adapter=LoraConfig(target_modules=('gate',)), **FAMILIES['gpt2'])


@pytest.mark.parametrize(('make', 'message'), [
  (lambda: LoraConfig(rank=0), 'LoraConfig.rank must be between 1'),
  (lambda: LoraConfig(rank_pattern={'out': 0}), 'LoraConfig.rank_pattern must be like'),
  (lambda: LoraConfig(alpha_pattern={'out': 'x'}), 'LoraConfig.alpha_pattern must be like'),
  (lambda: LoraConfig(target_modules='query'), 'LoraConfig.target_modules must be names'),
  (lambda: AdaLoraConfig(init_rank=2, target_rank=3), 'must not be above init_rank'),
  (lambda: Ia3Config(target_modules=('key',)), 'which is none of the target_modules'),
  (lambda: Ia3Config(target_modules=(), feedforward_modules=()), 'names no module'),
  (lambda: BottleneckConfig(placement='parallel'), "must be 'houlsby' or 'pfeiffer'"),
  (lambda: PrefixConfig(num_virtual_tokens=0), 'num_virtual_tokens must be between 1'),
  (lambda: FinetuneConfig(adapter='lora'), 'FinetuneConfig.adapter must be LoraConfig or')])
def test_settings_are_checked(make, message):
  with pytest.raises(UserError, match=message) as refused:
    make()
  assert '\n' not in str(refused.value)


def test_a_prefix_takes_positions_from_the_texts(make_model):
  assert make_model(adapter=PrefixConfig(num_virtual_tokens=28)).config.max_tokens == 100
  with pytest.raises(ValueError, match='no room for a text'):
    make_model(adapter=PrefixConfig(num_virtual_tokens=128))


def test_settings_with_patterns_can_be_hashed():
  one, other = (LoraConfig(rank_pattern=pattern) for pattern in ({'out': 2}, (('out', 2),)))
  assert one == other and hash(one) == hash(other)
