"""Adapters do in PEFT, on their base, what they do here; and PEFT's own adapters do here."""

import functools
import json

import jax
import numpy as np
import peft
import pytest
import safetensors.numpy
import torch
import transformers

from toolformer_jax import sharding
from toolformer_jax.checkpoints.adapters.load import load_adapter, load_adapters
from toolformer_jax.checkpoints.adapters.save import save_adapter
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  BottleneckConfig,
  Ia3Config,
  LoraConfig,
  PrefixConfig,
)
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.adapter_stack import with_adapter
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder

from .reference import their_logprobs

GPT = dict(norm='layer', gated_mlp=False, kv_heads=4, activation='gelu_tanh', mlp_bias=True)
GPT2 = GPT | dict(positions='learned', rotary_dim=0, qkv_bias=True, out_bias=True)
GEMMA = dict(qk_norm=True, activation='gelu_tanh', sandwich_norm=True, norm_offset=True,
             scaled_embedding=True, sliding_window=5, global_every=2)
GPTJ = GPT | dict(positions='rotary_interleaved', rotary_dim=4, parallel_block=True,
                  tied_head=False, head_bias=True)
PATTERNS = LoraConfig(
    rank=3, alpha=5.0, target_modules=('query', 'value', 'out', 'down'),
    rank_pattern={'value': 5, 'down': 2}, alpha_pattern={'down': 9.0, 'query': 4.0})
CASES = {
    'llama-lora': ({}, PATTERNS), 'gpt2-lora': (GPT2, PATTERNS),
    'gemma3-lora': (GEMMA, LoraConfig(rank=3, alpha=5.0, dropout=0.1)),
    'gptj-lora': (GPTJ, LoraConfig(rank=3, alpha=5.0)),
    'llama-adalora': ({}, AdaLoraConfig(init_rank=4, target_rank=2)),
    'gpt2-adalora': (GPT2, AdaLoraConfig(init_rank=4, target_rank=2,
                                         target_modules=('query', 'value', 'down'))),
    'llama-ia3': (dict(tied_head=False), Ia3Config()), 'gpt2-ia3': (GPT2, Ia3Config()),
    'llama-prefix': ({}, PrefixConfig(num_virtual_tokens=3)),
    'gpt2-prefix': (GPT2, PrefixConfig(num_virtual_tokens=3))}
IDS = list(range(40, 70))
CLOSE = dict(rtol=1e-5, atol=1e-5)


def tuned_from(base, adapter):
  """Returns `base` with random weights of an adapter; AdaLoRA lacks some of its ranks."""
  config = base.config.replace(adapter=adapter)
  shapes = sharding.unbox(abstract_variables(make_decoder(base.mesh, config)))['adapter']
  rng = np.random.default_rng(0)
  def draw(path, x):
    values = rng.normal(path[-1].key == 'scale', 0.2, x.shape).astype(np.float32)
    return values * (rng.random(x.shape) < 0.6) if path[-1].key == 'e' else values
  weights = jax.tree_util.tree_map_with_path(draw, shapes)
  return LanguageModel.from_variables(
      config, {**base.variables, 'adapter': weights}, base.tokenizer, base.mesh)


@functools.partial(jax.jit, static_argnums=0)
def _logits(decoder, variables, ids):
  return decoder.apply(variables, ids[None])[0][0, :-1]


def our_logprobs(model, ids):
  logits = np.asarray(_logits(model.decoder, model.variables, np.array(ids)), np.float64)
  top = logits.max(-1, keepdims=True)
  logprobs = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
  return logprobs[range(len(ids) - 1), ids[1:]]


@pytest.mark.parametrize('case', CASES)
def test_an_adapter_goes_to_peft_and_comes_back(make_model, tmp_path, case):
  family, adapter = CASES[case]
  base = make_model(**family)
  tuned = tuned_from(base, adapter)
  save_directory(tmp_path / 'base', base)
  save_adapter(tmp_path / 'adapter', tuned, str(tmp_path / 'base'))
  loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / 'adapter').eval()
  assert isinstance(loaded.base_model, torch.nn.Module)
  ids = [base.tokenizer.start_id, *IDS]
  ours = our_logprobs(tuned, ids)
  np.testing.assert_allclose(ours, their_logprobs(loaded, ids), **CLOSE)
  assert np.abs(our_logprobs(base, ids) - ours).max() > 1e-2
  loaded.save_pretrained(tmp_path / 'theirs')
  again = load_adapter(base, str(tmp_path / 'theirs'))
  assert again.config.adapter.kind == adapter.kind
  np.testing.assert_allclose(our_logprobs(again, ids), ours, **CLOSE)
  if adapter.kind != 'prefix':
    np.testing.assert_allclose(our_logprobs(merge_adapter(again), ids), ours, **CLOSE)


@pytest.mark.parametrize('settings', [
  dict(r=4, target_modules=['q_proj', 'down_proj'], layers_to_transform=[1], use_rslora=True),
  dict(r=4, target_modules='all-linear', rank_pattern={'layers.0.self_attn.q_proj': 2},
       alpha_pattern={'layers.1.mlp.up_proj': 3})], ids=['rslora', 'patterns'])
def test_settings_of_peft_alone_are_read(make_model, tmp_path, settings):
  base = make_model()
  save_directory(tmp_path / 'base', base)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'base')
  theirs = peft.get_peft_model(theirs, peft.LoraConfig(lora_alpha=6, **settings)).eval()
  generator = torch.Generator().manual_seed(0)
  for name, parameter in theirs.named_parameters():
    if 'lora_' in name:
      parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
  theirs.save_pretrained(tmp_path / 'adapter')
  ids = [base.tokenizer.start_id, *IDS]
  tuned = load_adapter(base, str(tmp_path / 'adapter'))
  ours = our_logprobs(tuned, ids)
  np.testing.assert_allclose(ours, their_logprobs(theirs, ids), **CLOSE)
  save_adapter(tmp_path / 'again', tuned, str(tmp_path / 'base'))
  again = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / 'again').eval()
  np.testing.assert_allclose(their_logprobs(again, ids), ours, **CLOSE)


def test_a_stack_of_two_is_what_peft_makes_of_each(make_model, tmp_path):
  base = make_model()
  save_directory(tmp_path / 'base', base)
  adapters = {'one': PATTERNS, 'two': AdaLoraConfig(init_rank=4, target_rank=2)}
  for name, adapter in adapters.items():
    save_adapter(tmp_path / name, tuned_from(base, adapter), str(tmp_path / 'base'))
  stack = load_adapters(base, {name: str(tmp_path / name) for name in adapters})
  ids = [base.tokenizer.start_id, *IDS]
  plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'base').eval()
  np.testing.assert_allclose(our_logprobs(stack, ids), their_logprobs(plain, ids), **CLOSE)
  for name in adapters:
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / name).eval()
    np.testing.assert_allclose(our_logprobs(with_adapter(stack, name), ids),
                               their_logprobs(theirs, ids), **CLOSE)


class Hub:
  """Bottlenecks in torch, from AdapterHub's files, on the blocks of a Llama of transformers."""

  def __init__(self, folder, model):
    self._tensors = safetensors.numpy.load_file(folder / 'adapter.safetensors')
    fields = json.loads((folder / 'adapter_config.json').read_text())
    self._name, settings = fields['name'], fields['config']
    self._activation = {'swish': torch.nn.functional.silu,
                        'relu': torch.relu}[settings['non_linearity']]
    for i, block in enumerate(model.model.layers):
      if settings['mh_adapter']:
        block.self_attn.register_forward_hook(
            lambda _, inputs, out, i=i: (out[0] + self(i, 'attention', out[0]), *out[1:]))
      stream = {}
      block.post_attention_layernorm.register_forward_pre_hook(
          lambda _, inputs, stream=stream: stream.update(x=inputs[0]))
      block.mlp.register_forward_hook(
          lambda _, inputs, out, i=i, stream=stream: out + self(
              i, 'output', out + settings['original_ln_before'] * stream['x']))

  def __call__(self, layer, place, x):
    def tensor(name):
      path = f'model.layers.{layer}.{place}_adapters.adapters.{self._name}.{name}'
      return torch.tensor(self._tensors[path])
    down = x @ tensor('adapter_down.0.weight').T + tensor('adapter_down.0.bias')
    return self._activation(down) @ tensor('adapter_up.weight').T + tensor('adapter_up.bias')


@pytest.mark.parametrize('placement', ['houlsby', 'pfeiffer'])
def test_bottlenecks_go_to_adapter_hub_and_come_back(make_model, tmp_path, placement):
  base = make_model()
  tuned = tuned_from(base, BottleneckConfig(placement=placement, reduction_factor=8.0))
  save_directory(tmp_path / 'base', base)
  save_adapter(tmp_path / 'adapter', tuned, 'org/base')
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'base').eval()
  Hub(tmp_path / 'adapter', theirs)
  ids = [base.tokenizer.start_id, *IDS]
  ours = our_logprobs(tuned, ids)
  np.testing.assert_allclose(ours, their_logprobs(theirs, ids), **CLOSE)
  again = load_adapter(base, str(tmp_path / 'adapter'))
  assert again.config == tuned.config
  np.testing.assert_array_equal(our_logprobs(again, ids), ours)


def test_adapters_alone_are_small(make_model, tmp_path):
  tuned = tuned_from(make_model(), LoraConfig(rank=3))
  save_adapter(tmp_path, tuned, 'org/base')
  fields = json.loads((tmp_path / 'adapter_config.json').read_text())
  assert fields['base_model_name_or_path'] == 'org/base'
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      'adapter_config.json', 'adapter_model.safetensors']


def test_a_model_without_adapters_has_none_to_export(make_model, tmp_path):
  with pytest.raises(UserError, match='has no adapter'):
    save_adapter(tmp_path, make_model(), 'org/base')


def test_what_the_format_cannot_say_is_refused(make_model, tmp_path):
  adapter = Ia3Config(target_modules=('query', 'key'), feedforward_modules=('query',))
  with pytest.raises(UserError, match='query, key, value are one layer'):
    save_adapter(tmp_path, tuned_from(make_model(**GPT2), adapter), 'org/base')
