"""GPT-2 and GPT-J.

Dimensions: D embedding, N heads, H head, F MLP.
"""

from typing import Any

from toolformer_jax.checkpoints.families.config_fields import ConfigFields
from toolformer_jax.checkpoints.families.family import Family
from toolformer_jax.checkpoints.families.weights import Weight, linear, norm, plain
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import BLOCKS

_GELU_TANH = ('gelu_new', 'gelu_pytorch_tanh')


def _read_gpt2(f: ConfigFields) -> DecoderConfig:
  f.expect('scale_attn_weights', True)
  f.expect('scale_attn_by_inverse_layer_idx', False)
  f.expect('add_cross_attention', False)
  return DecoderConfig(
      **_read_common(f), positions='learned', qkv_bias=True, out_bias=True,
      norm_eps=f.number('layer_norm_epsilon', 1e-5), tied_head=f.flag('tie_word_embeddings', True))


def _read_gptj(f: ConfigFields) -> DecoderConfig:
  f.expect('tie_word_embeddings', False)
  for flag in ('rotary', 'scale_attn_weights'):  # In the original file; no code reads them.
    f.expect(flag, True)
  return DecoderConfig(
      **_read_common(f), positions='rotary_interleaved', parallel_block=True, head_bias=True,
      norm_eps=f.number('layer_norm_epsilon', 1e-5), rotary_dim=f.integer('rotary_dim'),
      tied_head=False)


def _read_common(f: ConfigFields) -> dict[str, Any]:
  D, N = f.integer('n_embd'), f.integer('n_head')
  f.expect('activation_function', *_GELU_TANH)
  return {
      'vocab_size': f.integer('vocab_size'), 'layers': f.integer('n_layer'), 'embed_dim': D,
      'heads': N, 'kv_heads': N, 'head_dim': D // max(N, 1),
      'mlp_dim': f.integer('n_inner', None) or 4 * D, 'max_positions': f.integer('n_positions'),
      'norm': 'layer', 'gated_mlp': False, 'activation': 'gelu_tanh', 'mlp_bias': True}


def _write_gpt2(config: DecoderConfig) -> dict[str, Any]:
  return {
      'n_embd': config.embed_dim, 'n_head': config.heads, 'n_layer': config.layers,
      'n_inner': config.mlp_dim, 'n_positions': config.max_positions,
      'activation_function': 'gelu_new', 'layer_norm_epsilon': config.norm_eps}


def _write_gptj(config: DecoderConfig) -> dict[str, Any]:
  return {**_write_gpt2(config), 'rotary_dim': config.rotary_dim}


def _gpt2_weights(c: DecoderConfig) -> list[Weight]:
  D, N, H, F = c.embed_dim, c.heads, c.head_dim, c.mlp_dim
  block = 'transformer.h.{}'
  fused = []
  for i, name in enumerate(('query', 'key', 'value')):
    place = (BLOCKS, 'attention', name)
    fused += [
        Weight((*place, 'kernel'), f'{block}.attn.c_attn.weight', (D, 3 * D), (D, 3, N, H),
               (0, 1, 2), (1, i)),
        Weight((*place, 'bias'), f'{block}.attn.c_attn.bias', (3 * D,), (3, N, H), (0, 1), (0, i))]
  out = (BLOCKS, 'attention', 'out')
  head = [] if c.tied_head else linear('head', 'lm_head', [D], [c.vocab_size], bias=False)
  return [
      plain('embedding', 'transformer.wte.weight', c.vocab_size, D),
      plain('position_embedding', 'transformer.wpe.weight', c.max_positions, D),
      *norm(f'{BLOCKS}/attention_norm', f'{block}.ln_1', D, bias=True), *fused,
      Weight((*out, 'kernel'), f'{block}.attn.c_proj.weight', (D, D), (N, H, D), (0, 1, 2)),
      plain('/'.join((*out, 'bias')), f'{block}.attn.c_proj.bias', D),
      *norm(f'{BLOCKS}/mlp_norm', f'{block}.ln_2', D, bias=True),
      # GPT-2 stores matrices as [inputs, outputs], as we do.
      plain(f'{BLOCKS}/mlp/up/kernel', f'{block}.mlp.c_fc.weight', D, F),
      plain(f'{BLOCKS}/mlp/up/bias', f'{block}.mlp.c_fc.bias', F),
      plain(f'{BLOCKS}/mlp/down/kernel', f'{block}.mlp.c_proj.weight', F, D),
      plain(f'{BLOCKS}/mlp/down/bias', f'{block}.mlp.c_proj.bias', D),
      *norm('final_norm', 'transformer.ln_f', D, bias=True), *head]


def _gptj_weights(c: DecoderConfig) -> list[Weight]:
  D, N, H, F = c.embed_dim, c.heads, c.head_dim, c.mlp_dim
  block = 'transformer.h.{}'
  return [
      plain('embedding', 'transformer.wte.weight', c.vocab_size, D),
      *norm(f'{BLOCKS}/attention_norm', f'{block}.ln_1', D, bias=True),
      *(weight for ours, theirs in (('query', 'q'), ('key', 'k'), ('value', 'v'))
        for weight in linear(f'{BLOCKS}/attention/{ours}', f'{block}.attn.{theirs}_proj', [D],
                              [N, H], bias=False)),
      *linear(f'{BLOCKS}/attention/out', f'{block}.attn.out_proj', [N, H], [D], bias=False),
      *linear(f'{BLOCKS}/mlp/up', f'{block}.mlp.fc_in', [D], [F], bias=True),
      *linear(f'{BLOCKS}/mlp/down', f'{block}.mlp.fc_out', [F], [D], bias=True),
      *norm('final_norm', 'transformer.ln_f', D, bias=True),
      *linear('head', 'lm_head', [D], [c.vocab_size], bias=True)]


GPT2 = Family(
    'gpt2', 'GPT2LMHeadModel', _read_gpt2, _write_gpt2, _gpt2_weights,
    is_family_of=lambda config: config.positions == 'learned')
GPTJ = Family(
    'gptj', 'GPTJForCausalLM', _read_gptj, _write_gptj, _gptj_weights,
    is_family_of=lambda config: config.parallel_block)
