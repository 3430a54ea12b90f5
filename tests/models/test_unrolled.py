"""The program without a loop over layers computes the same, from the very same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.decoder import BLOCKS, block_name
from toolformer_jax.models.kv_cache import KVCache

TOLERANCE = dict(atol=1e-5, rtol=1e-5)
TOKENS = jnp.array(np.random.default_rng(0).integers(0, 250, (3, 9)))
VARIANTS = {
    'plain': {},
    'adapters': dict(adapter=LoraConfig(rank=4)),
    'gpt2': dict(norm='layer', positions='learned', rotary_dim=0, gated_mlp=False, kv_heads=4,
                 activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True),
    'gemma3': dict(sandwich_norm=True, norm_offset=True, sliding_window=3, global_every=2,
                   local_rotary_base=100.0),
}


@pytest.fixture(params=VARIANTS)
def model(request, make_model):
  return make_model(layers=3, **VARIANTS[request.param])


def random_cache(model, rows=4, slots=16):
  empty = KVCache.empty(model.config, rows, slots)
  rng = np.random.default_rng(0)
  arrays = (rng.normal(size=x.shape).astype(np.float32) for x in (empty.keys, empty.values))
  return KVCache(*map(jnp.array, arrays), jnp.array(rng.integers(1, slots - 9, rows), jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def apply(decoder, variables, tokens_BT, cache=None):
  return decoder.apply(variables, tokens_BT, cache=cache)


def assert_equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_logits_are_the_same(model):
  unrolled = model.with_unrolled_layers()
  expected, _ = apply(model.decoder, model.variables, TOKENS)
  got, cache = apply(unrolled.decoder, unrolled.variables, TOKENS)
  np.testing.assert_allclose(got, expected, **TOLERANCE)
  assert cache is None


def test_adapters_take_part(make_model):
  model = make_model(adapter=LoraConfig(rank=4)).with_unrolled_layers()
  params = {'params': model.variables['params']}
  without, _ = apply(model.decoder.clone(config=model.config.replace(adapter=None)), params, TOKENS)
  got, _ = apply(model.decoder, model.variables, TOKENS)
  assert np.abs(got - without).max() > 1e-3


def test_logits_and_cache_are_the_same_with_a_cache(model):
  unrolled, cache = model.with_unrolled_layers(), random_cache(model, rows=3)
  expected, wanted = apply(model.decoder, model.variables, TOKENS, cache=cache)
  got, written = apply(unrolled.decoder, unrolled.variables, TOKENS,
                       cache=cache.to_layout('per_layer'))
  np.testing.assert_allclose(got, expected, **TOLERANCE)
  written = written.to_layout('stacked')
  for ours, theirs in zip(jax.tree.leaves(written), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(ours, theirs, **TOLERANCE)
  assert not np.array_equal(written.keys, cache.keys)


def test_one_token_at_a_time_is_the_full_pass(model):
  unrolled = model.with_unrolled_layers()
  full, _ = apply(model.decoder, model.variables, TOKENS)
  cache, pieces = KVCache.empty(model.config, 3, 16).to_layout('per_layer'), []
  for at in range(TOKENS.shape[1]):
    logits, cache = apply(unrolled.decoder, unrolled.variables, TOKENS[:, at:at + 1], cache=cache)
    pieces.append(logits)
  np.testing.assert_allclose(jnp.concatenate(pieces, 1), full, atol=1e-4)


def test_all_layers_are_there_and_differ(model):
  variables = model.with_unrolled_layers().variables
  assert variables.keys() == model.variables.keys()
  for name, tree in model.variables.items():
    unrolled = variables[name]
    assert unrolled.keys() == (tree.keys() - {BLOCKS}) | {block_name(i) for i in range(3)}
    for layer in range(3):
      assert_equal(unrolled[block_name(layer)], jax.tree.map(lambda x, i=layer: x[i], tree[BLOCKS]))


def test_weights_are_views(make_model):
  # Of these sizes every layer's weights begin where XLA can use them in place.
  model = make_model(layers=3, embed_dim=64, mlp_dim=128, adapter=LoraConfig(rank=16))
  variables = model.with_unrolled_layers().variables
  for name, tree in model.variables.items():
    for layer in range(3):
      def assert_view(stacked, single, layer=layer):
        start = stacked.unsafe_buffer_pointer() + layer * stacked.nbytes // 3
        assert single.unsafe_buffer_pointer() == start
      jax.tree.map(assert_view, tree[BLOCKS], variables[name][block_name(layer)])
    for key in tree.keys() - {BLOCKS}:
      jax.tree.map(lambda x, y: np.testing.assert_equal(x is y, True), tree[key],
                   variables[name][key])


def test_a_cache_of_layers_holds_the_same(make_model):
  cache = random_cache(make_model(layers=3))
  layers = cache.to_layout('per_layer')
  assert layers.slots == cache.slots == 16 and len(layers.keys) == 3
  assert_equal(layers.to_layout('stacked'), cache)


@pytest.mark.parametrize('change', [
    lambda cache: cache.take(jnp.array([2, 0, 2])),
    lambda cache: cache.grow(40),
    lambda cache: cache.with_length(jnp.array([3, 1, 4, 1])),
    lambda cache: cache.put(jnp.array([3, 1]), cache.take(jnp.array([0, 2]))),
    lambda cache: cache.put(jnp.array([4, 1]), cache.take(jnp.array([0, 2]))),  # one is no row
], ids=['take', 'grow', 'length', 'put', 'put past the end'])
def test_a_cache_of_layers_changes_as_a_stacked_one_does(make_model, change):
  cache = random_cache(make_model(layers=3))
  changed = change(cache)
  assert_equal(change(cache.to_layout('per_layer')).to_layout('stacked'), changed)
  assert jax.tree.map(np.shape, changed) != jax.tree.map(np.shape, cache) or any(
      not np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (changed, cache)),
                                               strict=True))


@pytest.mark.parametrize('make', [lambda cache: cache, lambda cache: cache.to_layout('per_layer')])
def test_put_rows_are_taken_again_and_others_stay(make_model, make):
  model = make_model(layers=3)
  cache, rows = make(random_cache(model)), jnp.array([2, 0])
  other = cache.take(jnp.array([1, 3]))
  put = cache.put(rows, other)
  assert_equal(put.take(rows), other)
  assert_equal(put.take(jnp.array([1, 3])), cache.take(jnp.array([1, 3])))


@pytest.mark.parametrize('make', [lambda cache: cache, lambda cache: cache.to_layout('per_layer')])
def test_a_row_is_turned_and_written(make_model, make):
  model = make_model(layers=3)
  before, source = random_cache(model), random_cache(model, rows=2, slots=12)
  after = make(before).write(jnp.array(2), source.row(jnp.array(1), jnp.array(5)))
  after = after.to_layout('stacked')
  turned = np.r_[5:12, 0:5]
  k_LBKHS, v_LBKSH = np.array(before.keys), np.array(before.values)
  k_LBKHS[:, 2, ..., :12] = source.keys[:, 1][..., turned]
  v_LBKSH[:, 2, :, :12] = source.values[:, 1][:, :, turned]
  assert_equal(after, KVCache(jnp.array(k_LBKHS), jnp.array(v_LBKSH), before.length_B))


@pytest.mark.parametrize('make', [lambda cache: cache, lambda cache: cache.to_layout('per_layer')])
def test_a_grown_cache_reads_the_same(make_model, make):
  model = make_model(layers=3)
  cache = make(random_cache(model, rows=3))
  reader = model if cache.layout == 'stacked' else model.with_unrolled_layers()
  expected, _ = apply(reader.decoder, reader.variables, TOKENS, cache=cache)
  got, grown = apply(reader.decoder, reader.variables, TOKENS, cache=cache.grow(40))
  assert grown.slots == 40
  np.testing.assert_allclose(got, expected, **TOLERANCE)
