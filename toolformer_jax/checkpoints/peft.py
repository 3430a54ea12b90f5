"""Exports LoRA adapters in the format of the library PEFT."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from safetensors import SafetensorError

from toolformer_jax.checkpoints.families.registry import family_of
from toolformer_jax.checkpoints.families.weights import Weight, group_by_tensor
from toolformer_jax.checkpoints.hf_files import save_tensors
from toolformer_jax.checkpoints.tensors import leaf
from toolformer_jax.errors import UserError
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import local_folder
from toolformer_jax.runtime.run_dir import write_json


class _Adapter(NamedTuple):
  """The adapter of one linear layer of transformers: up [outputs, rank], down [rank, inputs]."""

  module: str
  down: np.ndarray
  up: np.ndarray


def save_adapter(path: epath.Path, model: LanguageModel, base: str) -> None:
  """Writes the adapters of `model`: adapter_config.json and adapter_model.safetensors.

  Args:
    path: the output directory.
    model: a model with adapters.
    base: the model to which PEFT applies the adapters: a directory or a name on the hub.

  Raises:
    UserError: the model has no adapters, or the directory cannot be written.
  """
  if not model.config.lora_rank:
    raise UserError('the model has no adapters to export; export it without --adapter')
  adapters = list(_adapters(model))
  tensors = {}
  for adapter in adapters:
    name = f'base_model.model.{adapter.module}'
    tensors[f'{name}.lora_A.weight'] = np.ascontiguousarray(adapter.down)
    tensors[f'{name}.lora_B.weight'] = np.ascontiguousarray(adapter.up)
  try:
    with local_folder(path, last='adapter_config.json') as folder:
      save_tensors(tensors, folder / 'adapter_model.safetensors')
      write_json(folder / 'adapter_config.json', _config(model, adapters, base))
  except (OSError, SafetensorError) as error:  # A full disk can raise either.
    raise UserError(f'cannot write {path}: {error}') from error


def _config(model: LanguageModel, adapters: Sequence[_Adapter], base: str) -> dict[str, object]:
  rank, alpha = model.config.lora_rank, model.config.lora_alpha
  ranks = {adapter.module.rpartition('.')[2]: len(adapter.down) for adapter in adapters}
  wider = {module: r for module, r in ranks.items() if r != rank}
  return {
      'peft_type': 'LORA', 'task_type': 'CAUSAL_LM', 'base_model_name_or_path': base, 'r': rank,
      'lora_alpha': alpha, 'lora_dropout': 0.0, 'bias': 'none', 'target_modules': sorted(ranks),
      'rank_pattern': wider,
      'alpha_pattern': {module: alpha * r / rank for module, r in wider.items()},
      'fan_in_fan_out': family_of(model.config).model_type == 'gpt2',
      'inference_mode': True}


def _adapters(model: LanguageModel) -> Iterator[_Adapter]:
  """Yields the adapters of all layers."""
  config = model.config.replace(lora_rank=0)
  for table in group_by_tensor(family_of(config).weights(config)):
    if not (table[0].of_block and table[0].path[-1] == 'kernel'):
      continue
    for layer, name in enumerate(table[0].tensor_names(config.layers)):
      yield _Adapter(name.removesuffix('.weight'), *_joined(model, table, layer))


def _joined(model: LanguageModel, table: Sequence[Weight],
            layer: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns `down` and `up` of the adapter of one tensor of a layer.

  Adapters of parameters that share the tensor are joined: the rank of the result is the sum of
  their ranks, and each of them contributes to its own outputs.
  """
  rank = model.config.lora_rank
  trees = [leaf(model.variables['lora'], weight.path[:-1]) for weight in table]
  down = [np.asarray(tree['a'][layer], np.float32).reshape(-1, rank).T for tree in trees]
  ups = [np.asarray(tree['b'][layer], np.float32).reshape(rank, -1).T for tree in trees]
  up = np.zeros((sum(map(len, ups)), rank * len(ups)), np.float32)
  first = 0
  for i, part in enumerate(ups):
    up[first:first + len(part), i * rank:(i + 1) * rank] = part
    first += len(part)
  return np.concatenate(down), up
