"""What 'bfloat16' is on CPUs: products of bfloat16 in a model of float32, or float32 alone."""

import json
import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from toolformer_jax import sharding
from toolformer_jax.api import compress, export
from toolformer_jax.checkpoints.orbax import load_orbax_config, save_model
from toolformer_jax.errors import UserError
from toolformer_jax.inference.decoding import STEPS, DecodeRows, SpecialTokens, decode_steps
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models import bfloat16
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.kv_cache import KVCache
from toolformer_jax.runtime.paths import as_path

from ..jaxprs import equations

VARIANTS = {
    'llama': {}, 'adapters': dict(adapter=LoraConfig(rank=4)),
    'gptj': dict(norm='layer', positions='rotary_interleaved', parallel_block=True, kv_heads=4,
                 gated_mlp=False, tied_head=False, head_bias=True, mlp_bias=True)}
TOKENS = jnp.array(np.random.default_rng(0).integers(0, 250, (3, 24)))


def logits(model):
  return jax.jit(model.decoder.apply)(model.variables, TOKENS)[0]


@pytest.mark.parametrize('variant', VARIANTS)
def test_products_alone_are_nearer_to_float32(make_bfloat16, make_model, variant):
  expected = logits(make_model(**VARIANTS[variant]))
  products, everything = (
      np.asarray(logits(make_bfloat16(parts, **VARIANTS[variant])), np.float32)
      for parts in ('products', 'all'))
  def error(got):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)
  assert 0 < error(products) < min(0.01, 0.7 * error(everything))


def test_without_fast_products_it_is_float32(make_bfloat16, make_model):
  model = make_bfloat16('none')
  np.testing.assert_array_equal(logits(model), logits(make_model()))
  assert model.config.dtype == 'bfloat16'
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(model.for_inference().variables))


@pytest.mark.parametrize('variant', VARIANTS)
def test_weights_are_cast_once(make_bfloat16, variant):
  model = make_bfloat16('products', **VARIANTS[variant])
  frozen = model.for_inference()
  np.testing.assert_array_equal(logits(frozen), logits(model))
  names = [path[-1].key for path, x in jax.tree_util.tree_leaves_with_path(frozen.variables)
           if x.dtype in (jnp.bfloat16, jnp.uint16)]
  assert set(names) == {'kernel', 'embedding'}
  assert KVCache.empty(model.config, 1, 8).keys.dtype == jnp.float32


def test_a_model_for_inference_is_not_changed(make_bfloat16, tmp_path):
  model = make_bfloat16('products', adapter=LoraConfig(rank=4)).for_inference()
  plain = make_bfloat16('products').for_inference()
  for change in (lambda: merge_adapter(model), lambda: plain.to_dtype('int8'),
                 lambda: compress(plain, output_dir=tmp_path / 'compressed'),
                 lambda: export(plain, output_dir=tmp_path / 'exported')):
    with pytest.raises(UserError, match='was made for inference in bfloat16 cannot be'):
      change()


def test_every_product_with_weights_is_one_of_bfloat16(make_bfloat16):
  model = make_bfloat16('products', adapter=LoraConfig(rank=4))
  def loss(params):
    return model.decoder.apply({**model.variables, 'params': params}, TOKENS)[0].sum()
  traced = jax.make_jaxpr(jax.grad(loss))(model.variables['params'])
  products = [equation for equation in equations(traced.jaxpr)
              if equation.primitive.name == 'dot_general']
  kinds = [tuple(str(x.aval.dtype) for x in (*one.invars, *one.outvars)) for one in products]
  # XLA has no fast ones with results of bfloat16. Those of attention are in float32.
  assert set(kinds) == {('bfloat16', 'bfloat16', 'float32'), ('float32',) * 3}
  assert kinds.count(('bfloat16', 'bfloat16', 'float32')) >= 7 * 3 + 1


def test_one_token_is_computed_as_two(make_bfloat16):
  model = make_bfloat16('products')
  apply = jax.jit(model.decoder.apply)
  np.testing.assert_allclose(apply(model.variables, TOKENS[:1, :1])[0],
                             apply(model.variables, TOKENS[:1, :2])[0][:, :1], rtol=1e-5, atol=1e-5)


def test_decoding_converts_no_table_of_embeddings(make_bfloat16):
  """XLA would do so at every call of `decode_steps`, ahead of its loop."""
  model = make_bfloat16('products', layers=1, vocab_size=8192)
  model = model.for_inference().with_unrolled_layers()
  def zeros(dtype, *shape):
    return jnp.zeros((2, *shape), dtype)
  rows = DecodeRows(
      zeros(int, STEPS + 1), zeros(int), zeros(bool), zeros(bool), zeros(int), zeros(int),
      zeros(int), zeros(jnp.uint32), zeros(jnp.float32), zeros(jnp.float32), zeros(int),
      zeros(bool))
  special = SpecialTokens(jnp.array(1), jnp.array([2]))
  cache = KVCache.empty(model.config, 2, 64, 'per_layer')
  compiled = decode_steps.lower(model.decoder, model.variables, cache, rows, special).compile()
  table_bytes = model.variables['params']['embedding'].nbytes
  assert compiled.memory_analysis().temp_size_in_bytes < table_bytes


def test_a_score_belongs_to_its_sequence(make_bfloat16):
  """A number whose last bits differ between two programs may be rounded to the next bfloat16, which
  is 1/256 away; one product later, the difference is as large as that of any such rounding."""
  model = make_bfloat16('products').for_inference()
  rng = np.random.default_rng(0)
  requests = [ScoreRequest((), tuple(rng.integers(0, 250, size)), tuple(range(1, size)))
              for size in (5, 30, 17, 90, 8)]
  together = score(model, requests)
  alone = [score(model, [request])[0] for request in requests]
  differences = np.abs(np.concatenate(together) - np.concatenate(alone))
  assert differences.max() < 0.05 and np.median(differences) < 1e-4


def test_gradients_are_nearer_to_those_of_float32(make_bfloat16, make_model):
  def gradients(model):
    def loss(params):
      logits_BTV, _ = model.decoder.apply({**model.variables, 'params': params}, TOKENS)
      logprobs = jax.nn.log_softmax(logits_BTV[:, :-1].astype(jnp.float32))
      return -jnp.take_along_axis(logprobs, TOKENS[:, 1:, None], -1).mean()
    return jax.jit(jax.value_and_grad(loss))(model.variables['params'])
  (wanted, expected), (loss, products), (_, everything) = map(
      gradients, (make_model(), make_bfloat16('products'), make_bfloat16('all')))
  assert float(loss) == pytest.approx(float(wanted), rel=2e-3)
  assert all(x.dtype == jnp.float32 and jnp.isfinite(x).all() for x in jax.tree.leaves(products))
  def error(some):
    differences = jax.tree.map(jnp.subtract, some, expected)
    return float(optax.tree.norm(differences) / optax.tree.norm(expected))
  assert 0 < error(products) < min(0.03, error(everything))


def test_devices_choose(monkeypatch, caplog):
  chip = SimpleNamespace(devices=np.array([SimpleNamespace(platform='tpu')]))
  assert bfloat16.choose_parts(chip) == 'all'
  here = sharding.make_mesh(devices=jax.devices()[:1])
  bfloat16._has_fast_products.cache_clear()
  with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
    patch.setattr(bfloat16, '_LEAST_SPEEDUP', 1e9)
    assert [bfloat16.choose_parts(here) for _ in range(3)] == ['none'] * 3
  bfloat16._has_fast_products.cache_clear()
  assert [record.getMessage() for record in caplog.records] == [
      'this CPU multiplies matrices no faster in bfloat16: here the dtype bfloat16 computes in '
      'float32']
  assert bfloat16.choose_parts(here) in ('products', 'none')


def test_checkpoints_do_not_depend_on_the_device(make_bfloat16, tmp_path):
  save_model(as_path(tmp_path), make_bfloat16('products'))
  assert load_orbax_config(as_path(tmp_path)).bfloat16_parts == 'all'
  files = [json.loads(file.read_text()) for file in tmp_path.rglob('*.json')]
  assert all('bfloat16_parts' not in json.dumps(fields) for fields in files)
