"""Weights that are cast once give the very numbers of weights that are cast at every use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax.models.adapter_config import LoraConfig

VARIANTS = {
    'llama': {}, 'adapters': dict(adapter=LoraConfig(rank=4)),
    'gpt2': dict(norm='layer', positions='learned', rotary_dim=0, gated_mlp=False, kv_heads=4,
                 activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True),
    'gptj': dict(norm='layer', positions='rotary_interleaved', parallel_block=True, kv_heads=4,
                 gated_mlp=False, tied_head=False, head_bias=True, mlp_bias=True)}


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('parts', ['all', 'products'])
def test_logits_are_bit_equal(make_bfloat16, parts, variant):
  model = make_bfloat16(parts, **VARIANTS[variant])
  tokens_BT = jnp.array(np.random.default_rng(0).integers(0, 250, (2, 24)))
  apply = jax.jit(model.decoder.apply)
  expected, got = (apply(m.variables, tokens_BT)[0] for m in (model, model.for_inference()))
  np.testing.assert_array_equal(np.asarray(got, np.float32), np.asarray(expected, np.float32))


def test_only_norms_stay_in_float32(make_bfloat16):
  frozen = make_bfloat16('all').for_inference()
  dtypes = {'/'.join(key.key for key in path): x.dtype for path, x in
            jax.tree_util.tree_leaves_with_path(frozen.variables)}
  assert {name for name, dtype in dtypes.items() if dtype == jnp.float32} == {
      'params/final_norm/scale', 'params/blocks/attention_norm/scale',
      'params/blocks/mlp_norm/scale'}
  assert dtypes['params/embedding'] == jnp.bfloat16


def test_nothing_is_copied_in_float32(make_model):
  model = make_model()
  pairs = zip(jax.tree.leaves(model.variables), jax.tree.leaves(model.for_inference().variables),
              strict=True)
  assert all(a.unsafe_buffer_pointer() == b.unsafe_buffer_pointer() for a, b in pairs)
