"""Products of int8 codes: how near they are, and where the codes come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax import CompressionConfig, FinetuneConfig, compress, export, load_model, sharding
from toolformer_jax.checkpoints.loading import ModelConfig
from toolformer_jax.checkpoints.orbax import load_orbax_model, save_model
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.int8 import int8_einsum, kernel_codes
from toolformer_jax.models.kv_cache import KVCache
from toolformer_jax.planning.annotation import weight_bytes
from toolformer_jax.runtime.paths import as_path
from toolformer_jax.training.finetune import finetune_examples

GPT2 = dict(norm='layer', positions='learned', rotary_dim=0, gated_mlp=False, kv_heads=4,
            activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True)
GPTJ = dict(norm='layer', positions='rotary_interleaved', parallel_block=True, kv_heads=4,
            gated_mlp=False, tied_head=False, head_bias=True, mlp_bias=True)
KINDS = {'llama': {}, 'gpt2': GPT2, 'gptj': GPTJ}
TOKENS = jnp.array(np.random.default_rng(0).integers(0, 250, (3, 24)))


def one_device():
  return sharding.make_mesh(devices=jax.devices()[:1])


def assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('equation', ['btd,dnh->btnh', 'btnh,nhd->btd', 'btd,df->btf'])
@pytest.mark.parametrize('rows', [(1, 1), (1, 5), (3, 1), (3, 20)])
def test_product_is_near_that_of_the_codes(equation, rows):
  sizes = dict(zip('btdnhf', (*rows, 40, 3, 16, 24), strict=True))
  rng = np.random.default_rng(0)
  left, right = equation.split('->')[0].split(',')
  x = rng.normal(size=[sizes[i] for i in left]).astype(np.float32)
  x[0, 0].flat[0] = 1000.0  # beside it, one code of 8 bits would leave nothing of the others
  kernel = rng.normal(size=[sizes[i] for i in right]).astype(np.float32)
  codes, scales = kernel_codes(kernel, len(equation.split('->')[1]) - 2)
  assert codes.dtype == np.int8 and np.abs(codes).max() == 127
  np.testing.assert_allclose(codes * scales, kernel, atol=scales.max() / 1.99)
  got = int8_einsum(equation, jnp.array(x), jnp.array(codes), jnp.array(scales))
  expected = np.einsum(equation, x.astype(np.float64), codes * scales.astype(np.float64))
  inputs = x.reshape(*x.shape[:2], -1)
  rounding = np.abs(inputs).max(-1) / 127 / 254 / 1.99 * np.sqrt(inputs.shape[2]) * 8
  error = np.abs(got - expected).reshape(*x.shape[:2], -1).max(-1)
  assert (error <= rounding).all()


def test_a_token_of_zeros_stays_zero():
  codes, scales = kernel_codes(np.ones((4, 2), np.float32), 1)
  assert not int8_einsum('btd,df->btf', jnp.zeros((1, 2, 4)), codes, scales).any()


@pytest.mark.parametrize('kind', KINDS)
def test_logits_are_near_those_of_float32(make_model, kind):
  model = make_model(**KINDS[kind])
  rounded = model.to_dtype('int8')
  expected, got = (jax.jit(m.decoder.apply)(m.variables, TOKENS)[0] for m in (model, rounded))
  assert got.dtype == jnp.float32
  assert 0 < np.linalg.norm(got - expected) < 0.01 * np.linalg.norm(expected)


@pytest.mark.parametrize('kind', KINDS)
def test_files_of_compress_are_used_as_they_are(make_model, tmp_path, kind):
  """The same codes as those of rounding the weights that were written."""
  model = make_model(**KINDS[kind])
  compress(model, output_dir=tmp_path / 'c', config=CompressionConfig(bits='int8',
                                                                      rounding='nearest'))
  stored = load_model(tmp_path / 'c', config=ModelConfig('int8'), devices=jax.devices()[:1])
  for part in ('attention', 'mlp'):
    assert_same(stored.variables['params']['blocks'][part],
                model.to_dtype('int8').variables['params']['blocks'][part])


@pytest.mark.parametrize('dtype', ['int8', 'int4'])
@pytest.mark.parametrize('kind', KINDS)
def test_every_format_is_rounded_alike(make_model, tmp_path, kind, dtype):
  model = make_model(**KINDS[kind])
  expected = model.to_dtype(dtype).variables
  export(model, output_dir=tmp_path / 'hf')
  found = load_model(tmp_path / 'hf', config=ModelConfig(dtype), devices=jax.devices()[:1])
  assert_same(found.variables, expected)
  save_model(as_path(tmp_path / 'orbax'), model)
  assert_same(load_orbax_model(as_path(tmp_path / 'orbax'), one_device(), dtype).variables,
              expected)


@pytest.mark.parametrize(('dtype', 'codes', 'scales'), [
  ('int8', (2, 16, 32), (2, 32)), ('int4', (2, 8, 32), (2, 1, 32))])
def test_meshes_get_the_same_codes(make_model, tmp_path, dtype, codes, scales):
  model = make_model()
  export(model, output_dir=tmp_path / 'hf')
  config = ModelConfig(dtype, 2, 2, 2)
  found = load_model(tmp_path / 'hf', config=config, devices=jax.devices()[:8])
  assert_same(found.variables, model.to_dtype(dtype).variables)
  up = found.variables['params']['blocks']['mlp']['up']
  assert up['kernel'].sharding.shard_shape(up['kernel'].shape) == codes
  assert up['kernel_scale'].sharding.shard_shape(up['kernel_scale'].shape) == scales


@pytest.mark.parametrize('dtype', ['int8', 'int4'])
@pytest.mark.parametrize('kind', KINDS)
def test_a_cache_gives_what_prefill_gives(make_model, kind, dtype):
  model = make_model(**KINDS[kind]).to_dtype(dtype)
  expected, _ = jax.jit(model.decoder.apply)(model.variables, TOKENS)
  for one, layout in ((model, 'stacked'), (model.with_unrolled_layers(), 'per_layer')):
    step, cache = jax.jit(one.decoder.apply), KVCache.empty(one.config, 3, 32, layout)
    for at in range(0, TOKENS.shape[1], 3):
      logits, cache = step(one.variables, TOKENS[:, at:at + 3], cache=cache)
      np.testing.assert_allclose(logits, expected[:, at:at + 3], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(('dtype', 'bound'), [('int8', 0.01), ('int4', 0.2)])
def test_adapters_take_part(make_model, dtype, bound):
  model = make_model(adapter=LoraConfig(rank=4))
  rounded = model.to_dtype(dtype)
  plain = model.decoder.clone(config=model.config.replace(adapter=None))
  expected, got, without = (
      decoder.apply(variables, TOKENS)[0] for decoder, variables in (
          (model.decoder, model.variables), (rounded.decoder, rounded.variables),
          (plain, {'params': model.variables['params']})))
  error = np.linalg.norm(got - expected)
  assert 0 < error < bound * np.linalg.norm(expected)
  assert error < 0.5 * np.linalg.norm(without - expected)


@pytest.mark.parametrize('dtype', ['int8', 'int4'])
def test_only_inference_takes_integers(make_model, tmp_path, dtype):
  model = make_model(adapter=LoraConfig(rank=4)).to_dtype(dtype)
  for use in (lambda: export(model, output_dir=tmp_path / 'a'),
              lambda: export(model, output_dir=tmp_path / 'b', format='gguf'),
              lambda: compress(model, output_dir=tmp_path / 'c'),
              lambda: merge_adapter(model), lambda: model.to_dtype('float32'),
              lambda: finetune_examples(model=model, examples=[], config=FinetuneConfig(),
                                        output_dir=as_path(tmp_path / 'd'), depends_on={})):
    with pytest.raises(UserError, match=f'a model in {dtype} cannot be'):
      use()


@pytest.mark.parametrize('dtype', ['int8', 'int4'])
def test_plans_count_its_bytes(make_model, dtype):
  model = make_model()
  rounded = model.to_dtype(dtype)
  def size(variables):
    return sum(x.nbytes for x in jax.tree.leaves(variables))
  scales = size([x['kernel_scale'] for part in ('attention', 'mlp')
                 for x in rounded.variables['params']['blocks'][part].values()])
  assert weight_bytes(model.config) == size(model.variables)
  assert weight_bytes(rounded.config) == size(rounded.variables) - scales
