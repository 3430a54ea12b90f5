"""Laws of prefill: what a row's cache holds depends on the row's own tokens alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.inference.prefill import Chunk, prefill
from toolformer_jax.models.kv_cache import KVCache, new_cache

# Texts that fill one packed row, that go on beyond it, that are one token, and that are none.
SIZES = (5, 40, 300, 1, 256, 130, 0, 33)
ROWS = len(SIZES)


def ids(rng, size):
  return rng.integers(0, 250, size).tolist()


def alone(model, tokens):
  """Returns the keys and values of a text that nothing is computed beside."""
  _, cache = model.decoder.apply(model.variables, jnp.array([tokens], jnp.int32),
                                 cache=KVCache.empty(model.config, 1, len(tokens)))
  return cache


def assert_holds(model, cache, row, tokens):
  stacked = cache.to_layout('stacked')
  expected, own = alone(model, tokens), stacked.take(jnp.array([row]))
  np.testing.assert_allclose(own.keys[..., :len(tokens)], expected.keys, atol=1e-5)
  np.testing.assert_allclose(own.values[..., :len(tokens), :], expected.values, atol=1e-5)


@pytest.mark.parametrize('unrolled', [False, True])
def test_every_row_holds_its_own_text(make_model, unrolled):
  model, rng = make_model(max_positions=512), np.random.default_rng(0)
  texts = [ids(rng, size) for size in SIZES]
  cache = new_cache(model.config, ROWS, 64, 'per_layer' if unrolled else 'stacked')  # grows
  cache = prefill(model, cache, [Chunk(row, 0, text) for row, text in enumerate(texts)])
  more = {row: ids(rng, size) for row, size in ((1, 7), (5, 70), (2, 33))}
  cache = prefill(model, cache, [
      *(Chunk(row, len(texts[row]), tokens) for row, tokens in more.items()),
      Chunk(6, 0, texts[0])])
  texts[6] = texts[0]
  for row, text in enumerate(texts):
    assert_holds(model, cache, row, text + more.get(row, []))


def test_rows_that_nothing_is_fed_to_stay(make_model):
  model, rng = make_model(), np.random.default_rng(1)
  first, second = ids(rng, 20), ids(rng, 30)
  cache = prefill(model, new_cache(model.config, 4, 64), [Chunk(2, 0, first)])
  cache = prefill(model, cache, [Chunk(0, 0, second), Chunk(3, 0, first)])
  assert_holds(model, cache, 2, first)
  assert_holds(model, cache, 0, second)
  assert not cache.keys[:, 1].any() and prefill(model, cache, []) is cache


def test_windows_are_kept_in_packed_rows(make_model):
  model, rng = make_model(layers=4, sliding_window=6, global_every=2), np.random.default_rng(2)
  texts = [ids(rng, size) for size in (20, 9, 13)]
  cache = prefill(model, new_cache(model.config, 4, 64),
               [Chunk(row, 0, text) for row, text in enumerate(texts)])
  for row, text in enumerate(texts):
    assert_holds(model, cache, row, text)


@pytest.mark.parametrize('shape', [(4, 1, 2), (2, 4, 1)])
def test_devices_change_nothing(make_model, shape):
  mesh, rng = sharding.make_mesh(*shape), np.random.default_rng(3)
  sizes = dict(layers=1, max_positions=512)
  one, eight = make_model(**sizes), make_model(mesh, **sizes)
  texts = [ids(rng, size) for size in (50, 3, 190, 231, 200, 300, 180, 170)]
  with jax.set_mesh(mesh):
    cache = prefill(eight, new_cache(eight.config, 8, 128),
                 [Chunk(row, 0, text) for row, text in enumerate(texts)])
  for row, text in enumerate(texts):
    assert_holds(one, KVCache(*map(np.asarray, (cache.keys, cache.values, cache.length_B))),
                 row, text)
