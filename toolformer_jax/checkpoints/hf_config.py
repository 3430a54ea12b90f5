"""Hugging Face's config.json as a DecoderConfig, and back.

A field that would change results and is not understood is an error: a model that is read half is
worse than none.
"""

from collections.abc import Callable
from typing import Any

from toolformer_jax.errors import UserError, unknown
from toolformer_jax.models.config import DecoderConfig

# What names, trains, stores or decodes a model, and does not change its logits.
_IRRELEVANT = frozenset('''
  _name_or_path _attn_implementation_autoset architectures attention_dropout attn_pdrop auto_map
  bos_token_id chunk_size_feed_forward dtype embd_pdrop eos_token_id gradient_checkpointing id2label
  initializer_range is_encoder_decoder is_llama_config label2id max_window_layers model_type n_ctx
  output_attentions output_hidden_states pad_token_id problem_type reorder_and_upcast_attn
  resid_pdrop return_dict rope_interleaved summary_activation summary_first_dropout
  summary_proj_to_labels summary_type summary_use_proj task_specific_params tokenizer_class
  torch_dtype transformers.js_config transformers_version use_cache
'''.split())
_GELU_TANH = ('gelu_new', 'gelu_pytorch_tanh')
_LOCAL, _GLOBAL = 'sliding_attention', 'full_attention'
_MISSING = object()
# Parameters of rotary embeddings by their type, and what we call them.
_SCALINGS = {
    'default': {}, 'linear': {'factor': 'rotary_scaling_factor'},
    'llama3': {'factor': 'rotary_scaling_factor', 'low_freq_factor': 'rotary_low_freq_factor',
               'high_freq_factor': 'rotary_high_freq_factor',
               'original_max_position_embeddings': 'rotary_original_positions'}}

ARCHITECTURES = {
    'gemma3_text': 'Gemma3ForCausalLM', 'gpt2': 'GPT2LMHeadModel', 'gptj': 'GPTJForCausalLM',
    'llama': 'LlamaForCausalLM', 'mistral': 'MistralForCausalLM', 'qwen2': 'Qwen2ForCausalLM',
    'qwen3': 'Qwen3ForCausalLM'}


class _Fields:
  """Fields of a config.json, each to be taken once; what is left over is not understood."""

  def __init__(self, fields: dict[str, Any], where: str):
    self._left = {name: value for name, value in fields.items() if name not in _IRRELEVANT}
    self.where = where

  def take(self, name: str, default: Any = _MISSING) -> Any:
    """Returns a field; without a default it has to be there."""
    value = self._left.pop(name, default)
    if value is _MISSING:
      raise UserError(f'{self.where} has no field {name}')
    return value

  def take_rotary(self, base: float = 10_000.0) -> dict[str, Any]:
    """Takes what is said of rotary embeddings, in the spelling of transformers 5 or before.

    `base` is that of a family where a file does not say it. Of layers that differ, what is said of
    all is said of the global ones.
    """
    older = {'rope_theta': self.take('rope_theta', base),
             **(self.take('rope_scaling', None) or {})}
    given = self.take('rope_parameters', None) or {}
    if _LOCAL in given or _GLOBAL in given:
      return {**given, _GLOBAL: {**older, **given.get(_GLOBAL, {})}}
    return {**older, **given}

  def expect(self, name: str, *allowed: Any) -> None:
    """Takes a field that has to have one of the values `allowed`; the first one is the default."""
    value = self.take(name, allowed[0])
    if value not in allowed:
      raise UserError(f'{self.where}: {name} is {value!r}, which is not supported, only '
                      f'{" or ".join(map(repr, allowed))}')

  def end(self) -> None:
    """Raises UserError if a field was not taken."""
    if self._left:
      raise UserError(f'{self.where}: the field {min(self._left)} is not understood, and may '
                      'change what the model computes')


def read_config(fields: dict[str, Any], where: str) -> tuple[str, DecoderConfig]:
  """Returns the model type and the configuration that a config.json describes.

  Args:
    fields: its content.
    where: its name, for errors.

  Raises:
    UserError: the type is unknown, or a field is missing, wrong or not understood.
  """
  kind = fields.get('model_type')
  if kind not in _READERS:
    raise unknown(f'model type in {where}', str(kind), _READERS)
  taken = _Fields(fields, where)
  try:
    config = _READERS[kind](taken)
  except (TypeError, ValueError) as error:
    raise UserError(f'{where} describes no model: {error}') from error
  taken.end()
  return kind, config


def _gpt2(f: _Fields) -> DecoderConfig:
  D, N = f.take('n_embd'), f.take('n_head')
  f.expect('activation_function', *_GELU_TANH)
  f.expect('scale_attn_weights', True)
  f.expect('scale_attn_by_inverse_layer_idx', False)
  f.expect('add_cross_attention', False)
  return DecoderConfig(
      vocab_size=f.take('vocab_size'), layers=f.take('n_layer'), embed_dim=D, heads=N, kv_heads=N,
      head_dim=D // N, mlp_dim=f.take('n_inner', None) or 4 * D,
      max_positions=f.take('n_positions'), norm='layer',
      norm_eps=f.take('layer_norm_epsilon', 1e-5), positions='learned', gated_mlp=False,
      activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True,
      tied_head=f.take('tie_word_embeddings', True))


def _gptj(f: _Fields) -> DecoderConfig:
  D, N = f.take('n_embd'), f.take('n_head')
  f.expect('activation_function', *_GELU_TANH)
  f.expect('tie_word_embeddings', False)
  for flag in ('rotary', 'scale_attn_weights'):  # in the original's file, and read by nobody
    f.expect(flag, True)
  return DecoderConfig(
      vocab_size=f.take('vocab_size'), layers=f.take('n_layer'), embed_dim=D, heads=N, kv_heads=N,
      head_dim=D // N, mlp_dim=f.take('n_inner', None) or 4 * D,
      max_positions=f.take('n_positions'), norm='layer',
      norm_eps=f.take('layer_norm_epsilon', 1e-5), positions='rotary_interleaved',
      rotary_dim=f.take('rotary_dim'), parallel_block=True, gated_mlp=False,
      activation='gelu_tanh', mlp_bias=True, head_bias=True, tied_head=False)


def _llama_like(f: _Fields, window: int | None = None, **own: Any) -> DecoderConfig:
  """Returns the configuration of the families that differ from Llama by `own` settings."""
  f.expect('hidden_act', 'silu')
  positions = f.take('max_position_embeddings')
  return _gated(
      f, **_rotary(f.take_rotary(), f.where), tied_head=f.take('tie_word_embeddings', False),
      # Up to the length of its window nobody can tell that a model has one.
      max_positions=min(positions, window or positions), **own)


def _gated(f: _Fields, **own: Any) -> DecoderConfig:
  """Returns the configuration of a decoder with gated MLPs; `own` are its other settings."""
  D, N = f.take('hidden_size'), f.take('num_attention_heads')
  H = f.take('head_dim', None) or D // N
  return DecoderConfig(
      vocab_size=f.take('vocab_size'), layers=f.take('num_hidden_layers'), embed_dim=D, heads=N,
      kv_heads=f.take('num_key_value_heads', None) or N, head_dim=H,
      mlp_dim=f.take('intermediate_size'), norm_eps=f.take('rms_norm_eps', 1e-6), rotary_dim=H,
      **own)


def _llama(f: _Fields) -> DecoderConfig:
  f.expect('pretraining_tp', 1)
  bias = f.take('attention_bias', False)
  return _llama_like(f, qkv_bias=bias, out_bias=bias, mlp_bias=f.take('mlp_bias', False))


def _mistral(f: _Fields) -> DecoderConfig:
  return _llama_like(f, window=f.take('sliding_window', None))


def _qwen2(f: _Fields) -> DecoderConfig:
  _no_window(f)
  return _llama_like(f, qkv_bias=True)


def _qwen3(f: _Fields) -> DecoderConfig:
  _no_window(f)
  bias = f.take('attention_bias', False)
  return _llama_like(f, qkv_bias=bias, out_bias=bias, qk_norm=True)


def _gemma3(f: _Fields) -> DecoderConfig:
  f.expect('hidden_activation', 'gelu_pytorch_tanh')
  f.expect('use_bidirectional_attention', False, None)
  for cap in ('attn_logit_softcapping', 'final_logit_softcapping'):
    f.expect(cap, None)
  given = f.take_rotary(1_000_000.0)
  local = given.pop(_LOCAL, {'rope_theta': f.take('rope_local_base_freq', 10_000.0)})
  local = _rotary(local, f.where)
  bias, kinds = f.take('attention_bias', False), f.take('layer_types', None)
  every = f.take('_sliding_window_pattern', f.take('sliding_window_pattern', 6))
  if kinds:
    every = [*kinds, _GLOBAL].index(_GLOBAL) + 1
  config = _gated(
      f, **_rotary(given.pop(_GLOBAL, given), f.where), qkv_bias=bias, out_bias=bias, qk_norm=True,
      activation='gelu_tanh', sandwich_norm=True, norm_offset=True, scaled_embedding=True,
      sliding_window=f.take('sliding_window'), global_every=every,
      local_rotary_base=local.pop('rotary_base'), max_positions=f.take('max_position_embeddings'),
      tied_head=f.take('tie_word_embeddings', True))
  if f.take('query_pre_attn_scalar', 256) != config.head_dim:
    raise UserError(f'{f.where}: query_pre_attn_scalar differs from head_dim, which is not '
                    'supported')
  if kinds and kinds != layer_types(config.layers, every):
    raise UserError(f'{f.where}: layer_types that are not one global layer in every {every} are '
                    'not supported')
  if local:
    raise UserError(f'{f.where}: stretched wavelengths of local layers are not supported')
  return config


def layer_types(layers: int, global_every: int) -> list[str]:
  """Returns what transformers calls the kinds of the layers."""
  return [_LOCAL if i % global_every else _GLOBAL for i in range(1, layers + 1)]


def _no_window(f: _Fields) -> None:
  f.expect('use_sliding_window', False)
  f.take('sliding_window', None)
  kinds = set(f.take('layer_types', None) or ()) - {_GLOBAL}
  if kinds:
    raise UserError(f'{f.where}: layers of the type {min(kinds)} are not supported')


def _rotary(given: dict[str, Any], where: str) -> dict[str, Any]:
  """Returns our settings of rotary embeddings."""
  given = dict(given)
  kind = given.pop('rope_type', given.pop('type', 'default'))
  given.pop('type', None)
  names = {'rope_theta': 'rotary_base', **_SCALINGS.get(kind, {})}
  if kind not in _SCALINGS or given.keys() != names.keys():
    raise UserError(f'{where}: rotary embeddings of the type {kind!r} with {", ".join(given)} '
                    f'are not supported, only {", ".join(_SCALINGS)} with their own parameters')
  return {names[name]: value for name, value in given.items()}


_READERS: dict[str, Callable[[_Fields], DecoderConfig]] = {
    'gemma3_text': _gemma3, 'gpt2': _gpt2, 'gptj': _gptj, 'llama': _llama, 'mistral': _mistral,
    'qwen2': _qwen2, 'qwen3': _qwen3}


def model_type(config: DecoderConfig) -> str:
  """Returns the type that a decoder is in transformers."""
  if config.positions == 'learned':
    return 'gpt2'
  if config.parallel_block:
    return 'gptj'
  if config.sandwich_norm:
    return 'gemma3_text'
  if config.qk_norm:
    return 'qwen3'
  return 'qwen2' if config.qkv_bias and not config.out_bias else 'llama'


def write_config(config: DecoderConfig) -> dict[str, Any]:
  """Returns the config.json of a decoder, as transformers 4 and 5 read it."""
  kind = model_type(config)
  fields = {'model_type': kind, 'architectures': [ARCHITECTURES[kind]], 'torch_dtype': 'float32',
            'vocab_size': config.vocab_size, 'tie_word_embeddings': config.tied_head}
  if kind in ('gpt2', 'gptj'):
    rotary = {'rotary_dim': config.rotary_dim} if kind == 'gptj' else {}
    return fields | rotary | {
        'n_embd': config.embed_dim, 'n_head': config.heads, 'n_layer': config.layers,
        'n_inner': config.mlp_dim, 'n_positions': config.max_positions,
        'activation_function': 'gelu_new', 'layer_norm_epsilon': config.norm_eps}
  own = {} if kind == 'qwen2' else {'attention_bias': config.qkv_bias}
  if kind == 'llama':
    own['mlp_bias'] = config.mlp_bias
  if kind == 'gemma3_text':
    own |= {'hidden_activation': 'gelu_pytorch_tanh', 'query_pre_attn_scalar': config.head_dim,
            'sliding_window': config.sliding_window,
            'rope_local_base_freq': config.local_rotary_base,
            'layer_types': layer_types(config.layers, config.global_every)}
  else:
    own['hidden_act'] = 'silu'
  return fields | own | {
      'hidden_size': config.embed_dim, 'num_attention_heads': config.heads,
      'num_key_value_heads': config.kv_heads, 'head_dim': config.head_dim,
      'num_hidden_layers': config.layers, 'intermediate_size': config.mlp_dim,
      'max_position_embeddings': config.max_positions, 'rms_norm_eps': config.norm_eps,
      'rope_theta': config.rotary_base, 'rope_scaling': _scaling(config)}


def _scaling(config: DecoderConfig) -> dict[str, Any] | None:
  if config.rotary_scaling_factor == 1:
    return None
  kind = 'llama3' if config.rotary_original_positions else 'linear'
  return {'rope_type': kind,
          **{theirs: getattr(config, ours) for theirs, ours in _SCALINGS[kind].items()}}
