"""Laws of the decoder: causality, segments, caches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.models.kv_cache import KVCache, Prefix

FAMILIES = {
    'llama': {},
    'gpt2': dict(norm='layer', positions='learned', rotary_dim=0, gated_mlp=False, kv_heads=4,
                 activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True),
    'gptj': dict(norm='layer', positions='rotary_interleaved', rotary_dim=4, parallel_block=True,
                 gated_mlp=False, kv_heads=4, activation='gelu_tanh', mlp_bias=True,
                 tied_head=False, head_bias=True),
    'gemma3': dict(layers=3, qk_norm=True, activation='gelu_tanh', sandwich_norm=True,
                   norm_offset=True, scaled_embedding=True, sliding_window=3, global_every=2,
                   local_rotary_base=100.0),
}
TOKENS = jnp.array(np.random.default_rng(0).integers(0, 250, (2, 12)))


@pytest.fixture(params=FAMILIES)
def model(request, make_model):
  return make_model(**FAMILIES[request.param])


def test_no_gradient_from_the_future(model):
  def input_gradient(at):
    def with_embeddings(table_TD):
      tokens = jnp.arange(12)[None]
      table = model.variables['params']['embedding'].at[:12].set(table_TD)
      params = {**model.variables['params'], 'embedding': table}
      logits, _ = model.decoder.apply({'params': params}, tokens)
      return logits[0, at, 100:200].sum()  # of ids whose rows are not changed
    return jax.grad(with_embeddings)(model.variables['params']['embedding'][:12])
  gradient_TD = np.asarray(input_gradient(5))
  assert (gradient_TD[6:] == 0).all()
  assert (np.abs(gradient_TD[:6]).max(-1) > 0).all()


def test_cached_decoding_is_the_full_pass(model):
  full, _ = model.decoder.apply(model.variables, TOKENS)
  cache = KVCache.empty(model.config, 2, 16)
  pieces = []
  for start, stop in ((0, 5), (5, 6), (6, 12)):
    logits, cache = model.decoder.apply(model.variables, TOKENS[:, start:stop], cache=cache)
    pieces.append(logits)
  np.testing.assert_allclose(jnp.concatenate(pieces, 1), full, atol=1e-4)
  assert cache.length_B.tolist() == [12, 12]


def test_rolling_back_undoes(model):
  cache = KVCache.empty(model.config, 2, 24)
  _, cache = model.decoder.apply(model.variables, TOKENS[:, :6], cache=cache)
  expected, _ = model.decoder.apply(model.variables, TOKENS[:, 6:9], cache=cache)
  _, spoiled = model.decoder.apply(model.variables, TOKENS[:, ::-1], cache=cache)
  got, _ = model.decoder.apply(
      model.variables, TOKENS[:, 6:9], cache=spoiled.with_length(cache.length_B))
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_shared_prefixes_are_a_longer_text(model):
  full, _ = model.decoder.apply(model.variables, TOKENS[:1])
  _, first = model.decoder.apply(
      model.variables, TOKENS[:1, :4], cache=KVCache.empty(model.config, 1, 4))
  _, second = model.decoder.apply(
      model.variables, TOKENS[:1, 4:9], cache=KVCache.empty(model.config, 1, 9),
      prefixes=[Prefix.of(first, jnp.array([4]))])
  # Three rows share both; each sees another part of the second and goes on from there.
  limits, rows = jnp.array([2, 5, 3]), jnp.stack([TOKENS[0, 6:9], TOKENS[0, 9:12], TOKENS[0, 7:10]])
  got, _ = model.decoder.apply(
      model.variables, rows,
      prefixes=[Prefix.of(first, jnp.full(3, 4)), Prefix.of(second, limits)])
  for row, start in enumerate((6, 9, 7)):
    np.testing.assert_allclose(got[row], full[0, start:start + 3], atol=1e-4)


def test_segments_do_not_see_each_other(model):
  packed = jnp.concatenate([TOKENS[:1, :5], TOKENS[1:, :7]], 1)
  segments, positions = jnp.array([[1] * 5 + [2] * 7]), jnp.array([[*range(5), *range(7)]])
  got, _ = model.decoder.apply(
      model.variables, packed, segment_ids_BT=segments, positions_BT=positions)
  for part, alone in ((got[:, :5], TOKENS[:1, :5]), (got[:, 5:], TOKENS[1:, :7])):
    np.testing.assert_allclose(part, model.decoder.apply(model.variables, alone)[0], atol=1e-4)


def test_logits_only_where_asked(model):
  full, _ = model.decoder.apply(model.variables, TOKENS)
  at = jnp.array([[3, 0], [11, 11]])
  some, _ = model.decoder.apply(model.variables, TOKENS, logits_at_BM=at)
  np.testing.assert_allclose(some, jnp.take_along_axis(full, at[..., None], 1), atol=1e-5)


def test_no_device_reads_rows_of_another_whole(make_model):
  mesh = sharding.make_mesh(1, 2, 4)
  one, eight = make_model(vocab_size=264), make_model(mesh, vocab_size=264)
  with jax.set_mesh(mesh):
    compiled = jax.jit(lambda variables, tokens: eight.decoder.apply(
        variables, tokens, return_hidden=True)[0]).lower(eight.variables, TOKENS).compile()
    hidden_BTD = compiled(eight.variables, TOKENS)
  assert 'f32[66,32]' in compiled.as_text() and 'f32[264,32]' not in compiled.as_text()
  np.testing.assert_allclose(
      hidden_BTD, one.decoder.apply(one.variables, TOKENS, return_hidden=True)[0], atol=1e-5)
