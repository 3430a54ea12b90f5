"""The fields of a config.json of transformers, checked for presence, type and range.

A field that changes the logits and is not supported must be an error: a model of which some
settings are ignored would give wrong results. Other fields that are not known are a warning.
"""

import logging
import math
import re
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig

LOCAL_ATTENTION, GLOBAL_ATTENTION = 'sliding_attention', 'full_attention'

# Metadata, and settings of training, storage and generation: they do not change the logits.
_IRRELEVANT = frozenset('''
  _name_or_path architectures auto_map chunk_size_feed_forward dtype gradient_checkpointing id2label
  initializer_range is_encoder_decoder is_llama_config label2id max_window_layers model_type n_ctx
  n_special num_labels output_attentions output_hidden_states output_past predict_special_tokens
  problem_type pruned_heads reorder_and_upcast_attn return_dict rope_interleaved summary_activation
  summary_proj_to_labels summary_type summary_use_proj task_specific_params tokenizer_class
  torch_dtype transformers.js_config transformers_version unsloth_fixed unsloth_version use_cache
'''.split())
# The same by their names: dropout, ids of special tokens, and which kernel computes attention.
_IRRELEVANT_NAMES = re.compile(
    r'(dropout|layerdrop|pdrop)(_prob|_rate)?$|_token_id$|attn_implementation|flash_att')
# Names of unknown fields that may change the logits.
_MAY_CHANGE_LOGITS = re.compile(
    '(?i)act|alibi|attention|attn|audio|bias|cap|causal|chunk|clip|conv|embed|expert|head|layer|logit|'
    'mask|moe|multipl|norm|parallel|position|quant|rope|rotary|scal|sink|ssm|vision|window')
# Counts of which 0 stands for none.
_COUNTS = re.compile('expert|window')
_MISSING = object()
_MAX_INTEGER = 2**31 - 1
_ORIGINAL_POSITIONS = 'original_max_position_embeddings'
# The parameters of each type of rotary embeddings, and the fields of DecoderConfig.
_ROTARY_FIELDS = {
    'default': {}, 'linear': {'factor': 'rotary_scaling_factor'},
    'llama3': {'factor': 'rotary_scaling_factor', 'low_freq_factor': 'rotary_low_freq_factor',
               'high_freq_factor': 'rotary_high_freq_factor',
               _ORIGINAL_POSITIONS: 'rotary_original_positions'},
    'yarn': {'factor': 'rotary_scaling_factor', 'beta_fast': 'rotary_beta_fast',
             'beta_slow': 'rotary_beta_slow', 'attention_factor': 'rotary_attention_factor',
             _ORIGINAL_POSITIONS: 'rotary_original_positions'}}


class ConfigFields:
  """The fields of a config.json. Each is taken once; those that are left over are unsupported."""

  def __init__(self, fields: dict[str, Any], where: str):
    """Reads `fields`; `where` is the name of the file, for errors.

    Fields that are null or false are dropped if no family takes them: they switch nothing on.
    """
    self._left = {name: value for name, value in fields.items()
                  if name not in _IRRELEVANT and not _IRRELEVANT_NAMES.search(name)}
    self._max_positions = fields.get('max_position_embeddings')
    self.where = where

  def error(self, message: str) -> UserError:
    """Returns an error about this file."""
    return UserError(f'{self.where}: {message}')

  def take(self, name: str, default: Any = _MISSING) -> Any:
    """Returns a field of any type. Without a default it is required."""
    value = self._left.pop(name, default)
    if value is _MISSING:
      raise UserError(f'{self.where} has no field {name}')
    return value

  def integer(self, name: str, default: Any = _MISSING) -> Any:
    """Returns a field that is a non-negative integer, or the default."""
    value = self.take(name, default)
    if value is not default and (type(value) is not int or not 0 <= value <= _MAX_INTEGER):
      raise self.error(f'{name} must be an integer from 0 to {_MAX_INTEGER}, not {_short(value)}')
    return value

  def optional_integer(self, name: str, absent: int | None = None) -> int | None:
    """Returns a field that is an integer or null; `absent` if the file does not have it."""
    return self.integer(name, None) if name in self._left else absent

  def number(self, name: str, default: Any = _MISSING) -> Any:
    """Returns a field that is a non-negative finite number, or the default."""
    value = self.take(name, default)
    if value is default:
      return default
    if not _is_number(value):
      raise self.error(f'{name} must be a non-negative number, not {_short(value)}')
    return float(value)  # JAX refuses large integers

  def flag(self, name: str, default: bool) -> bool:
    """Returns a field that is true or false."""
    value = self.take(name, default)
    if not isinstance(value, bool):
      raise self.error(f'{name} must be true or false, not {_short(value)}')
    return value

  def mapping(self, name: str) -> dict[str, Any]:
    """Returns a copy of a field that is an object; an empty one if it is absent or null."""
    value = self.take(name, None)
    if not isinstance(value, dict | None):
      raise self.error(f'{name} must be an object, not {_short(value)}')
    return dict(value or {})

  def layer_types(self) -> list[str]:
    """Returns the field `layer_types`; an empty list if it is absent or null."""
    value = self.take('layer_types', None) or []
    if not isinstance(value, list) or not all(isinstance(kind, str) for kind in value):
      raise self.error(f'layer_types must be a list of strings, not {_short(value)}')
    return value

  def expect(self, name: str, *allowed: Any) -> None:
    """Takes a field that must have one of the values `allowed`; the first one is the default."""
    value = self.take(name, allowed[0])
    if value not in allowed:
      raise self.error(f'{name} is {_short(value)}, which is not supported, only '
                       f'{" or ".join(map(repr, allowed))}')

  def rotary(self, base: float = 10_000.0) -> dict[str, Any]:
    """Takes the fields of rotary embeddings, in the format of transformers 4 or 5.

    Args:
      base: the base of this family if the file does not have one.

    Returns:
      the parameters. If the file has different ones for local layers, they are under
      LOCAL_ATTENTION, and those of the others under GLOBAL_ATTENTION.
    """
    self.expect('partial_rotary_factor', 1.0, None)
    older = {'rope_theta': self.take('rope_theta', base), **self.mapping('rope_scaling')}
    given = self.mapping('rope_parameters')
    if LOCAL_ATTENTION in given or GLOBAL_ATTENTION in given:
      if not all(isinstance(part, dict) for part in given.values()):
        raise self.error('rope_parameters of the layer types must be objects')
      return {**given, GLOBAL_ATTENTION: {**older, **given.get(GLOBAL_ATTENTION, {})}}
    return {**older, **given}

  def rotary_settings(self, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of DecoderConfig for parameters of rotary embeddings."""
    given = {name: value for name, value in given.items()
             if name != 'finetuned' and (name != 'partial_rotary_factor' or value != 1)}
    kind = given.pop('rope_type', given.pop('type', 'default'))
    given.pop('type', None)
    if kind == 'longrope':
      return self._long_rope(given)
    if kind == 'yarn':
      given = self._yarn(given)
    names = {'rope_theta': 'rotary_base', **(_rotary_fields(kind) or {})}
    if _ORIGINAL_POSITIONS in names and self._max_positions is not None:
      given.setdefault(_ORIGINAL_POSITIONS, self._max_positions)
    if _rotary_fields(kind) is None or given.keys() != names.keys():
      raise self.error(f'rotary embeddings of the type {_short(kind)} with {", ".join(given)} are '
                       f'not supported, only {", ".join(_ROTARY_FIELDS)} with their own parameters')
    for name, value in given.items():
      if not _is_number(value) or not value:
        raise self.error(f'{name} must be a positive number, not {_short(value)}')
      if name == _ORIGINAL_POSITIONS and type(value) is not int:
        raise self.error(f'{name} must be an integer, not {_short(value)}')
    return {names[name]: value for name, value in given.items()}

  def _yarn(self, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters of YaRN with those that were left to their defaults."""
    given = {name: value for name, value in given.items() if value is not None}
    scales = given.pop('mscale', 0), given.pop('mscale_all_dim', 0)
    if not given.pop('truncate', True):
      raise self.error('YaRN with truncate: false is not supported')
    factor = given.get('factor')
    if not all(map(_is_number, (*scales, factor))) or not factor:
      raise self.error('factor, mscale and mscale_all_dim of YaRN must be positive numbers')
    def log_scale(multiplier: float) -> float:
      return 0.1 * multiplier * math.log(max(factor, 1.0)) + 1
    attention_factor = log_scale(scales[0]) / log_scale(scales[1]) if all(scales) else log_scale(1)
    return {'attention_factor': attention_factor, 'beta_fast': 32.0, 'beta_slow': 1.0, **given}

  def _long_rope(self, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of DecoderConfig for LongRoPE whose factors do not depend on the length.

    Others would change the keys of a text while it grows.
    """
    divisors = given.get('long_factor')
    if (divisors != given.get('short_factor') or given.get('attention_factor') != 1
        or not isinstance(divisors, list) or not all(map(_is_number, divisors))
        or not all(divisors) or not _is_number(given.get('rope_theta'))):
      raise self.error('LongRoPE is supported only with the same factors, positive numbers, for '
                       'short and long texts, and with attention_factor 1')
    return {'rotary_base': given['rope_theta'], 'rotary_divisors': tuple(divisors)}

  def check_unused(self) -> None:
    """Rejects fields that were not taken and may change the logits; warns about others.

    Fields that are null or false do not matter, except that attention must be causal.

    Raises:
      UserError: a field that was not taken may change the logits.
    """
    left = sorted(name for name, value in self._left.items() if not _is_off(name, value))
    if wrong := [name for name in left if _MAY_CHANGE_LOGITS.search(name)]:
      raise self.error(f'the field {wrong[0]} is not supported, and may change what the model '
                       'computes')
    if left:
      logging.getLogger(__name__).warning(
          '%s: unknown fields are ignored: %s', self.where, ', '.join(left))


def rope_scaling(config: DecoderConfig) -> dict[str, Any] | None:
  """Returns the field `rope_scaling` of a config.json."""
  if config.rotary_divisors:
    divisors = list(config.rotary_divisors)
    return {'rope_type': 'longrope', 'short_factor': divisors, 'long_factor': divisors,
            'factor': 1.0, 'attention_factor': 1.0,
            _ORIGINAL_POSITIONS: config.max_positions}
  if config.rotary_scaling_factor == 1:
    return None
  kind = ('yarn' if config.rotary_beta_fast
          else 'llama3' if config.rotary_original_positions else 'linear')
  return {'rope_type': kind,
          **{theirs: getattr(config, ours) for theirs, ours in _ROTARY_FIELDS[kind].items()}}


def _rotary_fields(kind: Any) -> dict[str, str] | None:
  return _ROTARY_FIELDS.get(kind) if isinstance(kind, str) else None


def _is_off(name: str, value: Any) -> bool:
  """Returns whether a field that nobody takes leaves the model as it is."""
  if 'causal' in name:
    return value is None or value is True
  return value is None or value is False or (
      type(value) is int and value == 0 and bool(_COUNTS.search(name)))


def _is_number(value: Any) -> bool:
  # The comparison comes first: an integer may be too large for a float.
  return type(value) in (int, float) and 0 <= value <= 1e30 and math.isfinite(value)


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:60]}...'
