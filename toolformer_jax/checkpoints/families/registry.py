"""The model families that can be loaded and exported.

To add one, define a Family in a new file (or beside a similar family) and add it to FAMILIES. If
its layers need something that the decoder cannot do, add an option to `models/config.py`. To read
it from GGUF files too, add its names to `checkpoints/gguf_names.py`.
"""

from typing import Any

from toolformer_jax.checkpoints.families.config_fields import ConfigFields
from toolformer_jax.checkpoints.families.family import Family
from toolformer_jax.checkpoints.families.gemma3 import GEMMA3
from toolformer_jax.checkpoints.families.gpt2 import GPT2, GPTJ
from toolformer_jax.checkpoints.families.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.models.config import DecoderConfig

# A configuration is exported as the first family that it fits.
FAMILIES = (GPT2, GPTJ, GEMMA3, MISTRAL, QWEN3, QWEN2, LLAMA)
_BY_MODEL_TYPE = {family.model_type: family for family in FAMILIES}


def read_config(fields: dict[str, Any], where: str) -> tuple[Family, DecoderConfig]:
  """Returns the family and the configuration that a config.json describes.

  Args:
    fields: its content.
    where: its name, for errors.

  Raises:
    UserError: the model type is unknown, or a field is missing, wrong or not supported.
  """
  model_type = fields.get('model_type')
  if not isinstance(model_type, str) or model_type not in _BY_MODEL_TYPE:
    raise unknown(f'model type in {where}', str(model_type), _BY_MODEL_TYPE)
  family = _BY_MODEL_TYPE[model_type]
  taken = ConfigFields(fields, where)
  try:
    config = family.read_config(taken)
  except (TypeError, ValueError, OverflowError) as error:  # DecoderConfig refuses it
    raise taken.error(f'not a valid configuration: {error}') from error
  taken.check_unused()
  return family, config


def write_config(config: DecoderConfig) -> dict[str, Any]:
  """Returns the config.json of a decoder, as transformers 4 and 5 read it."""
  family = family_of(config)
  return {
      'model_type': family.model_type, 'architectures': [family.architecture],
      'torch_dtype': 'float32', 'vocab_size': config.vocab_size,
      'tie_word_embeddings': config.tied_head, **family.write_config(config)}


def family_of(config: DecoderConfig) -> Family:
  """Returns the family as which a decoder is exported.

  Raises:
    UserError: no family has these settings.
  """
  for family in FAMILIES:
    if family.is_family_of(config):
      return family
  raise UserError(f'no model family of transformers fits {config}')
