"""Weights of 4 bits in memory: they are those of the file, and are computed a layer at a time."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax import CompressionConfig, compress, load_model
from toolformer_jax.checkpoints.loading import ModelConfig
from toolformer_jax.compression.bits import Rounding, save_rounded
from toolformer_jax.errors import UserError
from toolformer_jax.models.int4 import pack_rows, round_kernel, unpack_rows
from toolformer_jax.models.kv_cache import KVCache
from toolformer_jax.runtime.paths import as_path

from .test_int8 import GPT2, KINDS, TOKENS

TEXTS = [f'The number {i} is less than {i + 1}, as everybody knows.' for i in range(40)]


def load(folder, dtype):
  return load_model(folder, config=ModelConfig(dtype), devices=jax.devices()[:1])


def logprobs(model):
  logits, _ = jax.jit(model.decoder.apply)(model.variables, TOKENS)
  return jax.nn.log_softmax(logits)


@pytest.mark.parametrize('outputs', [(5,), (3, 4)])
def test_weights_are_codes_times_scales(outputs):
  rng = np.random.default_rng(0)
  codes = rng.integers(-8, 8, (96, *outputs)).astype(np.int8)
  scales = rng.normal(size=(3, *outputs)).astype(np.float16)
  packed = pack_rows(codes)
  assert packed.dtype == np.uint8 and packed.shape == (48, *outputs)
  np.testing.assert_array_equal(unpack_rows(jnp.array(packed), jnp.array(scales)),
                                codes * scales.repeat(32, 0).astype(np.float32))


def test_a_kernel_is_rounded_within_groups_of_inputs():
  kernel = np.random.default_rng(1).normal(size=(2, 32, 4, 6)).astype(np.float32)
  packed, scales = round_kernel(kernel, np.dtype(np.uint8), 3)
  assert scales.shape == (2, 4, 6) and scales.dtype == np.float16
  error = np.abs(np.array(unpack_rows(packed, scales)).reshape(kernel.shape) - kernel).max(1)
  assert (error <= np.abs(kernel).max(1) / 7.9).all() and error.max() > 0


@pytest.mark.parametrize('kind', [*KINDS, 'larger groups'])
@pytest.mark.parametrize('rounding', ['nearest', 'gptq'])
def test_log_probabilities_are_those_of_the_expanded_weights(make_model, tmp_path, kind, rounding):
  others = {'larger groups': dict(embed_dim=64, head_dim=16, rotary_dim=16)}
  config = CompressionConfig(bits='int4', rounding=rounding, calibration_rows=2,
                             calibration_tokens=64,
                             group_size=64 if kind == 'larger groups' else 32)
  compress(make_model(**(KINDS | others)[kind]), TEXTS, output_dir=tmp_path / 'c', config=config)
  found, expanded = load(tmp_path / 'c', 'int4'), load(tmp_path / 'c', 'float32')
  assert found.variables['params']['blocks']['mlp']['up']['kernel'].dtype == jnp.uint8
  np.testing.assert_allclose(logprobs(found), logprobs(expanded), atol=1e-5)
  for one in (found, found.for_inference()):  # scales keep their bits
    scales = one.variables['params']['blocks']['mlp']['up']['kernel_scale']
    assert scales.dtype == jnp.float16


def test_bytes_in_memory_are_those_of_the_file(make_model, tmp_path):
  compress(make_model(**GPT2), output_dir=tmp_path / 'c',
           config=CompressionConfig(bits='int4', rounding='nearest'))
  kernels = [module for part in ('attention', 'mlp') for module in
             load(tmp_path / 'c', 'int4').variables['params']['blocks'][part].values()]
  held = sum(module[name].nbytes for module in kernels for name in ('kernel', 'kernel_scale'))
  whole = sum(module['kernel'].size for part in ('attention', 'mlp') for module in
              load(tmp_path / 'c', 'float32').variables['params']['blocks'][part].values())
  assert held == whole * (4 + 16 / 32) / 8


@pytest.mark.parametrize('unrolled', [False, True])
def test_only_a_few_matrices_are_expanded_at_a_time(make_model, unrolled):
  model = make_model(layers=16, mlp_dim=512)
  expanded = sum(x.nbytes for x in jax.tree.leaves(model.variables['params']['blocks']))
  model = model.to_dtype('int4')
  model = model.with_unrolled_layers() if unrolled else model
  cache = KVCache.empty(model.config, 1, 8, 'per_layer' if unrolled else 'stacked')
  program = jax.jit(model.decoder.apply).lower(
      model.variables, TOKENS[:1, :1], cache=cache).compile()
  assert program.memory_analysis().temp_size_in_bytes < 3 * expanded / model.config.layers


# XLA's scheduler is chosen once for a process, and that of the tests starts nothing early.
TEMPORARIES = '''
import jax
from toolformer_jax import ModelConfig, load_model
from toolformer_jax.models.kv_cache import KVCache
model = load_model('c', config=ModelConfig('int4')).with_unrolled_layers()
cache = KVCache.empty(model.config, 1, 8, 'per_layer')
program = jax.jit(model.decoder.apply).lower(
    model.variables, jax.numpy.ones((1, 1), int), cache=cache).compile()
print(program.memory_analysis().temp_size_in_bytes)
'''


def test_layers_are_not_expanded_ahead_by_another_scheduler(make_model, tmp_path):
  model = make_model(layers=6, mlp_dim=512)
  expanded = sum(x.nbytes for x in jax.tree.leaves(model.variables['params']['blocks']))
  compress(model, output_dir=tmp_path / 'c',
           config=CompressionConfig(bits='int4', rounding='nearest'))
  done = subprocess.run([sys.executable, '-c', TEMPORARIES], cwd=tmp_path, text=True, check=True,
                        stdout=subprocess.PIPE, env={**os.environ, 'XLA_FLAGS': ''})
  assert int(done.stdout) < expanded / model.config.layers


@pytest.mark.parametrize('bits', [(8, 8), (4, 8)])
def test_layers_of_eight_bits_are_not_rounded_again(make_model, tmp_path, bits):
  save_rounded(as_path(tmp_path), make_model(), Rounding(bits, 32, []))
  with pytest.raises(UserError, match='is not stored in 4 bits .* another ModelConfig.dtype'):
    load(tmp_path, 'int4')
  assert load(tmp_path, 'int8').config.dtype == 'int8'
