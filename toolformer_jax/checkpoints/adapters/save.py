"""Writes an adapter for PEFT or AdapterHub."""

from typing import Any

import numpy as np
from etils import epath
from safetensors import SafetensorError

from toolformer_jax.checkpoints.adapters.bottleneck import write_bottleneck
from toolformer_jax.checkpoints.adapters.ia3_and_prefix import PROMPT, write_ia3, write_prefix
from toolformer_jax.checkpoints.adapters.low_rank import write_adalora, write_lora
from toolformer_jax.checkpoints.families.registry import family_of
from toolformer_jax.checkpoints.hf_files import save_tensors
from toolformer_jax.checkpoints.names import ADAPTER_CONFIG
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  BottleneckConfig,
  Ia3Config,
  LoraConfig,
  PrefixConfig,
)
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import local_folder
from toolformer_jax.runtime.run_dir import write_json

PEFT_WEIGHTS, ADAPTER_HUB_WEIGHTS = 'adapter_model.safetensors', 'adapter.safetensors'
PREFIX = 'base_model.model.'  # of the names of tensors in PEFT


def save_adapter(path: epath.Path, model: LanguageModel, base: str) -> None:
  """Writes the adapter of `model`: adapter_config.json and the weights as safetensors.

  LoRA, AdaLoRA, IA3 and prefixes have PEFT's format, bottlenecks that of AdapterHub.

  Args:
    path: the output directory.
    model: a model with an adapter.
    base: the model to which the adapter is applied: a directory or a name on the hub.

  Raises:
    UserError: the model has no adapter, the format cannot express it, or the directory cannot be
      written.
  """
  fields, tensors = _files(model, base)
  is_hub = isinstance(model.config.adapter, BottleneckConfig)
  if not is_hub:
    tensors = {name if name == PROMPT else f'{PREFIX}{name}': one for name, one in tensors.items()}
    fields |= {'task_type': 'CAUSAL_LM', 'base_model_name_or_path': base, 'inference_mode': True}
  try:
    with local_folder(path, last=ADAPTER_CONFIG) as folder:
      save_tensors({name: np.ascontiguousarray(one) for name, one in tensors.items()},
                   folder / (ADAPTER_HUB_WEIGHTS if is_hub else PEFT_WEIGHTS))
      write_json(folder / ADAPTER_CONFIG, fields)
  except (OSError, SafetensorError) as error:  # A full disk can raise either.
    raise UserError(f'cannot write {path}: {error}') from error


def _files(model: LanguageModel, base: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns adapter_config.json and the tensors."""
  fan_in_fan_out = {'fan_in_fan_out': family_of(model.config).model_type == 'gpt2'}
  dense = {'bias': 'none', **fan_in_fan_out}
  match model.config.adapter:
    case LoraConfig() as adapter:
      fields, tensors = write_lora(model, adapter)
      return fields | dense, tensors
    case AdaLoraConfig() as adapter:
      fields, tensors = write_adalora(model, adapter)
      return fields | dense, tensors
    case Ia3Config() as adapter:
      fields, tensors = write_ia3(model, adapter)
      return fields | fan_in_fan_out, tensors
    case PrefixConfig() as adapter:
      return write_prefix(model, adapter)
    case BottleneckConfig() as adapter:
      return write_bottleneck(model, adapter, base)
  raise UserError('the model has no adapter to export; leave out --adapter_of')
