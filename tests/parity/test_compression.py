"""A model with fewer layers, heads, channels and weights is a plain one for transformers."""

import numpy as np
import pytest
import transformers

import toolformer_jax as tf_jax
from toolformer_jax import CompressionConfig
from toolformer_jax.inference.scoring import ScoreRequest, score

from .reference import their_logprobs

GPT2 = dict(norm='layer', gated_mlp=False, kv_heads=4, activation='gelu_tanh', mlp_bias=True,
            positions='learned', rotary_dim=0, qkv_bias=True, out_bias=True)
TEXTS = [f'The number {i} is less than {i + 1}, as everybody knows.' for i in range(40)]


@pytest.mark.parametrize(('shape', 'settings'), [
  ({}, dict(layers=2, kv_heads=1, mlp_dim=40, sparsity=0.5)),
  ({'qk_norm': True}, dict(keep_layers=(0, 2), kv_heads=1, unit_scores='taylor')),
  ({'qkv_bias': True}, dict(kv_heads=1, mlp_dim=24, unit_scores='magnitude')),
  (GPT2, dict(layers=1, mlp_dim=40, sparsity=0.5, pattern='2:4'))],
  ids=['llama', 'qwen3', 'qwen2', 'gpt2'])
def test_log_probabilities_are_the_same(make_model, tmp_path, shape, settings):
  config = CompressionConfig(calibration_rows=2, calibration_tokens=64, **settings)
  result = tf_jax.compress(make_model(layers=3, **shape), TEXTS, output_dir=tmp_path / 'small',
                           config=config)
  model = tf_jax.load_model(result.path)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(result.path)
  assert sum(x.numel() for x in theirs.parameters()) == result.parameters[1]
  ids = [model.tokenizer.start_id, *np.random.default_rng(1).integers(0, 256, 50).tolist()]
  ours = score(model, [ScoreRequest((), tuple(ids[1:]), tuple(range(len(ids) - 1)))])[0]
  np.testing.assert_allclose(ours, their_logprobs(theirs, ids), atol=1e-4)
