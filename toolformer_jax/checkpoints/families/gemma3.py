"""Gemma 3, text only."""

from typing import Any

from toolformer_jax.checkpoints.families.config_fields import (
  GLOBAL_ATTENTION,
  LOCAL_ATTENTION,
  ConfigFields,
)
from toolformer_jax.checkpoints.families.family import Family
from toolformer_jax.checkpoints.families.llama import gated_weights, read_gated, write_gated
from toolformer_jax.models.config import DecoderConfig


def _read(f: ConfigFields) -> DecoderConfig:
  f.expect('hidden_activation', 'gelu_pytorch_tanh')
  f.expect('use_bidirectional_attention', False, None)
  for cap in ('attn_logit_softcapping', 'final_logit_softcapping'):
    f.expect(cap, None)
  rotary = f.rotary(1_000_000.0)
  local = rotary.pop(LOCAL_ATTENTION, {'rope_theta': f.take('rope_local_base_freq', 10_000.0)})
  local = f.rotary_settings(local)
  bias = f.flag('attention_bias', False)
  kinds = f.layer_types()
  every = f.integer('sliding_window_pattern', 6)
  f.take('_sliding_window_pattern', None)  # transformers writes it, and does not read it
  if kinds:
    every = [*kinds, GLOBAL_ATTENTION].index(GLOBAL_ATTENTION) + 1
  config = read_gated(
      f, default_kv_heads=4, default_head_dim=256,
      **f.rotary_settings(rotary.pop(GLOBAL_ATTENTION, rotary)), qkv_bias=bias, out_bias=bias,
      qk_norm=True, activation='gelu_tanh', sandwich_norm=True, norm_offset=True,
      scaled_embedding=True, sliding_window=f.integer('sliding_window'), global_every=every,
      local_rotary_base=local.pop('rotary_base'),
      max_positions=f.integer('max_position_embeddings'),
      tied_head=f.flag('tie_word_embeddings', True))
  scalar = f.number('query_pre_attn_scalar', 256)
  if scalar < 1 or scalar % 1:
    raise f.error('query_pre_attn_scalar must be a positive integer')
  if scalar != config.head_dim:
    config = config.replace(attention_scale=scalar**-0.5)
  # The length comes first: a list of that many layers might not fit in memory.
  if kinds and (len(kinds) != config.layers or kinds != _layer_types(config)):
    raise f.error(f'layer_types are supported only if every {every}th layer is global')
  if local:
    raise f.error('scaled rotary embeddings of local layers are not supported')
  return config


def _write(config: DecoderConfig) -> dict[str, Any]:
  return {
      **write_gated(config), 'attention_bias': config.qkv_bias,
      'hidden_activation': 'gelu_pytorch_tanh',
      # Rounded, since transformers reads integers alone.
      'query_pre_attn_scalar': round(config.attention_scale**-2) if config.attention_scale
      else config.head_dim,
      'sliding_window': config.sliding_window, 'rope_local_base_freq': config.local_rotary_base,
      'layer_types': _layer_types(config)}


def _layer_types(config: DecoderConfig) -> list[str]:
  """Returns the type of each layer, as transformers calls it."""
  return [LOCAL_ATTENTION if i % config.global_every else GLOBAL_ATTENTION
          for i in range(1, config.layers + 1)]


GEMMA3 = Family(
    'gemma3_text', 'Gemma3ForCausalLM', _read, _write, gated_weights,
    is_family_of=lambda config: config.sandwich_norm)
