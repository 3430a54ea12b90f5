"""Adapters that are exported do in PEFT, on their base, what they do here."""

import json

import jax
import numpy as np
import peft
import pytest
import transformers

from toolformer_jax import sharding
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.checkpoints.peft import save_adapter
from toolformer_jax.errors import UserError
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder

from .reference import their_logprobs

GPT = dict(norm='layer', gated_mlp=False, kv_heads=4, activation='gelu_tanh', mlp_bias=True)
FAMILIES = {
    'llama': {},
    'gemma3': dict(qk_norm=True, activation='gelu_tanh', sandwich_norm=True, norm_offset=True,
                   scaled_embedding=True, sliding_window=5, global_every=2),
    'gpt2': GPT | dict(positions='learned', rotary_dim=0, qkv_bias=True, out_bias=True),
    'gptj': GPT | dict(positions='rotary_interleaved', rotary_dim=4, parallel_block=True,
                       tied_head=False, head_bias=True),
}
IDS = list(range(40, 70))


def with_adapters(base):
  config = base.config.replace(lora_rank=3, lora_alpha=5.0)
  shapes = sharding.unbox(abstract_variables(make_decoder(base.mesh, config)))['lora']
  rng = np.random.default_rng(0)
  lora = jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes)
  return LanguageModel.from_variables(
      config, {**base.variables, 'lora': lora}, base.tokenizer, base.mesh)


@pytest.mark.parametrize('family', FAMILIES)
def test_logits_are_the_same(make_model, tmp_path, family):
  base = make_model(**FAMILIES[family])
  tuned = with_adapters(base)
  save_directory(tmp_path / 'base', base)
  save_adapter(tmp_path / 'adapter', tuned, str(tmp_path / 'base'))
  loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / 'adapter')
  assert isinstance(loaded.base_model.model, transformers.PreTrainedModel)
  ids = [base.tokenizer.start_id, *IDS]
  expected = their_logprobs(loaded.eval(), ids)
  request = [ScoreRequest((), tuple(IDS), tuple(range(len(IDS))))]
  np.testing.assert_allclose(score(tuned, request)[0], expected, atol=1e-4)
  assert np.abs(score(base, request)[0] - expected).max() > 1e-2


def test_adapters_alone_are_small(make_model, tmp_path):
  tuned = with_adapters(make_model())
  save_adapter(tmp_path, tuned, 'org/base')
  fields = json.loads((tmp_path / 'adapter_config.json').read_text())
  assert fields['base_model_name_or_path'] == 'org/base'
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      'adapter_config.json', 'adapter_model.safetensors']


def test_a_model_without_adapters_has_none_to_export(make_model, tmp_path):
  with pytest.raises(UserError, match='has no adapters'):
    save_adapter(tmp_path, make_model(), 'org/base')
