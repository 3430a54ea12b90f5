"""Attention weights against those of transformers, for each kind of attention."""

import copy

import numpy as np
import pytest
import torch

from toolformer_jax.inference.attention_weights import attention_weights

from .test_families import V, ours, saved, theirs  # noqa: F401 - a fixture


@pytest.mark.parametrize('family', [
  'gpt2', 'gptj', 'llama', 'llama-yarn', 'mistral-short-window', 'qwen3', 'gemma3'])
def test_they_are_the_means_of_the_heads(saved, family):  # noqa: F811
  ids = np.random.default_rng(0).integers(0, V, 24)
  their_model = copy.deepcopy(theirs(family, 0))  # that of other tests stays as it is
  their_model.set_attn_implementation('eager')
  with torch.no_grad():
    layers = their_model(torch.tensor(ids)[None], output_attentions=True).attentions
  expected_LTS = np.stack([layer[0].mean(0).numpy() for layer in layers])
  found_LTS = attention_weights(ours(saved(family, 0)), ids.tolist())
  np.testing.assert_allclose(found_LTS, expected_LTS, atol=1e-5)
  np.testing.assert_allclose(found_LTS.sum(-1), 1, atol=1e-5)
