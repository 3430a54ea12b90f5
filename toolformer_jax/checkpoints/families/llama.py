"""Llama, and the families that differ from it in a few settings: Mistral, Qwen 2 and Qwen 3.

Dimensions: D embedding, N heads, K key/value heads, H head, F MLP.
"""

from typing import Any

from toolformer_jax.checkpoints.families.config_fields import (
  GLOBAL_ATTENTION,
  ConfigFields,
  rope_scaling,
)
from toolformer_jax.checkpoints.families.family import Family
from toolformer_jax.checkpoints.families.weights import Weight, linear, norm, plain
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import BLOCKS


def read_gated(f: ConfigFields, *, default_kv_heads: int | None = None,
               default_head_dim: int | None = None, **settings: Any) -> DecoderConfig:
  """Returns the configuration of a decoder with gated MLPs.

  Args:
    f: the fields of a config.json.
    default_kv_heads: key/value heads if the file does not say; None for as many as heads.
    default_head_dim: size of a head if the file does not say; None for embedding / heads.
    **settings: the other fields of DecoderConfig.
  """
  D, N = f.integer('hidden_size'), f.integer('num_attention_heads')
  H = f.optional_integer('head_dim', default_head_dim) or D // max(N, 1)
  return DecoderConfig(
      vocab_size=f.integer('vocab_size'), layers=f.integer('num_hidden_layers'), embed_dim=D,
      heads=N, kv_heads=f.optional_integer('num_key_value_heads', default_kv_heads) or N,
      head_dim=H,
      mlp_dim=f.integer('intermediate_size'), norm_eps=f.number('rms_norm_eps', 1e-6),
      rotary_dim=H, **settings)


def write_gated(config: DecoderConfig) -> dict[str, Any]:
  """Returns the fields that all decoders with gated MLPs have."""
  return {
      'hidden_size': config.embed_dim, 'num_attention_heads': config.heads,
      'num_key_value_heads': config.kv_heads, 'head_dim': config.head_dim,
      'num_hidden_layers': config.layers, 'intermediate_size': config.mlp_dim,
      'max_position_embeddings': config.max_positions, 'rms_norm_eps': config.norm_eps,
      'rope_theta': config.rotary_base, 'rope_scaling': rope_scaling(config)}


def _read_like_llama(f: ConfigFields, **settings: Any) -> DecoderConfig:
  """Returns the configuration of a family that differs from Llama by `settings`."""
  f.expect('hidden_act', 'silu', 'swish')
  return read_gated(
      f, **f.rotary_settings(f.rotary()), tied_head=f.flag('tie_word_embeddings', False),
      max_positions=f.integer('max_position_embeddings'), **settings)


def _read_llama(f: ConfigFields) -> DecoderConfig:
  f.expect('pretraining_tp', 1)
  bias = f.flag('attention_bias', False)
  return _read_like_llama(f, qkv_bias=bias, out_bias=bias, mlp_bias=f.flag('mlp_bias', False))


def _read_mistral(f: ConfigFields) -> DecoderConfig:
  """Returns the configuration of a Mistral model, whose layers all have the sliding window."""
  window = f.optional_integer('sliding_window', 4096)
  config = _read_like_llama(f, default_kv_heads=8)
  if not window or window >= config.max_positions:  # it makes no difference
    return config
  if rope_scaling(config):
    raise f.error('a sliding window with scaled rotary embeddings is not supported')
  return config.replace(sliding_window=window, global_every=config.layers + 1,
                        local_rotary_base=config.rotary_base)


def _read_qwen2(f: ConfigFields) -> DecoderConfig:
  _refuse_sliding_window(f)
  return _read_like_llama(f, default_kv_heads=32, qkv_bias=True)


def _read_qwen3(f: ConfigFields) -> DecoderConfig:
  _refuse_sliding_window(f)
  bias = f.flag('attention_bias', False)
  return _read_like_llama(f, default_kv_heads=32, default_head_dim=128, qkv_bias=bias,
                          out_bias=bias, qk_norm=True)


def _refuse_sliding_window(f: ConfigFields) -> None:
  f.expect('use_sliding_window', False)
  f.take('sliding_window', None)
  if kinds := set(f.layer_types()) - {GLOBAL_ATTENTION}:
    raise f.error(f'layers of the type {min(kinds)} are not supported')


def _write_llama(config: DecoderConfig) -> dict[str, Any]:
  return {**_write_qwen3(config), 'mlp_bias': config.mlp_bias}


def _write_mistral(config: DecoderConfig) -> dict[str, Any]:
  return {**_write_qwen2(config), 'sliding_window': config.sliding_window}


def _write_qwen2(config: DecoderConfig) -> dict[str, Any]:
  return {'hidden_act': 'silu', **write_gated(config)}


def _write_qwen3(config: DecoderConfig) -> dict[str, Any]:
  return {**_write_qwen2(config), 'attention_bias': config.qkv_bias}


def gated_weights(c: DecoderConfig) -> list[Weight]:
  """Returns the weights of a decoder with gated MLPs."""
  D, N, K, H, F = c.embed_dim, c.heads, c.kv_heads, c.head_dim, c.mlp_dim
  block = 'model.layers.{}'
  def project(ours: str, theirs: str, heads: int) -> list[Weight]:
    return linear(f'{BLOCKS}/attention/{ours}', f'{block}.self_attn.{theirs}_proj', [D],
                  [heads, H], c.qkv_bias)
  def mlp(ours: str, inputs: int, outputs: int) -> list[Weight]:
    return linear(f'{BLOCKS}/mlp/{ours}', f'{block}.mlp.{ours}_proj', [inputs], [outputs],
                  c.mlp_bias)
  def block_norm(ours: str, theirs: str, size: int) -> list[Weight]:
    return norm(f'{BLOCKS}/{ours}', f'{block}.{theirs}', size, bias=False)
  norms = block_norm('attention_norm', 'input_layernorm', D)
  if c.sandwich_norm:
    norms += [*block_norm('attention_out_norm', 'post_attention_layernorm', D),
              *block_norm('mlp_norm', 'pre_feedforward_layernorm', D),
              *block_norm('mlp_out_norm', 'post_feedforward_layernorm', D)]
  else:
    norms += block_norm('mlp_norm', 'post_attention_layernorm', D)
  if c.qk_norm:
    norms += [*block_norm('attention/query_norm', 'self_attn.q_norm', H),
              *block_norm('attention/key_norm', 'self_attn.k_norm', H)]
  return [
      plain('embedding', 'model.embed_tokens.weight', c.vocab_size, D), *norms,
      *project('query', 'q', N), *project('key', 'k', K), *project('value', 'v', K),
      *linear(f'{BLOCKS}/attention/out', f'{block}.self_attn.o_proj', [N, H], [D], c.out_bias),
      *mlp('gate', D, F), *mlp('up', D, F), *mlp('down', F, D),
      *norm('final_norm', 'model.norm', D, bias=False),
      *([] if c.tied_head else linear('head', 'lm_head', [D], [c.vocab_size], bias=False))]


LLAMA = Family(
    'llama', 'LlamaForCausalLM', _read_llama, _write_llama, gated_weights,
    is_family_of=lambda config: not config.qk_norm and config.qkv_bias == config.out_bias)
# Without its window, a Mistral model is exported as a Llama model.
MISTRAL = Family(
    'mistral', 'MistralForCausalLM', _read_mistral, _write_mistral, gated_weights,
    is_family_of=lambda config: config.sliding_window > 0 and not config.sandwich_norm)
QWEN2 = Family(
    'qwen2', 'Qwen2ForCausalLM', _read_qwen2, _write_qwen2, gated_weights,
    is_family_of=lambda config: not config.qk_norm and config.qkv_bias and not config.out_bias)
QWEN3 = Family(
    'qwen3', 'Qwen3ForCausalLM', _read_qwen3, _write_qwen3, gated_weights,
    is_family_of=lambda config: config.qk_norm and not config.sandwich_norm)
