"""Reads an adapter of PEFT or AdapterHub onto a model."""

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy
import numpy as np
import safetensors
from etils import epath
from safetensors.numpy import load_file

from toolformer_jax import sharding
from toolformer_jax.checkpoints.adapters import ia3_and_prefix, low_rank
from toolformer_jax.checkpoints.adapters.bottleneck import read_bottleneck
from toolformer_jax.checkpoints.adapters.modules import Linear, Weights, by_name, nested
from toolformer_jax.checkpoints.adapters.save import ADAPTER_HUB_WEIGHTS, PEFT_WEIGHTS, PREFIX
from toolformer_jax.checkpoints.names import ADAPTER_CONFIG, check_adapter
from toolformer_jax.data.local_copy import local_copy
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import AdapterConfig
from toolformer_jax.models.adapter_stack import stack_adapters
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.runtime.paths import as_path, is_remote
from toolformer_jax.runtime.run_dir import read_json

_TENSORS = {'LORA': ('lora_A', 'lora_B'), 'ADALORA': ('lora_A', 'lora_B', 'lora_E'),
            'IA3': ('ia3_l',)}
_TENSOR = re.compile(r'(.+)\.(lora_A|lora_B|lora_E|ia3_l)(\.weight)?')
# Settings of PEFT that change the result and are supported with these values alone.
_SUPPORTED: Mapping[str, tuple[Any, ...]] = {
    'use_dora': (False, None), 'bias': ('none', None), 'modules_to_save': (None, []),
    'trainable_token_indices': (None, []), 'layer_replication': (None, []),
    'use_qalora': (False, None), 'lora_bias': (False, None)}


def load_adapter(model: LanguageModel, path: str) -> LanguageModel:
  """Returns `model` with the adapter in a directory that PEFT, AdapterHub or `export` has written.

  Raises:
    UserError: there is no adapter, it is broken or not supported, it belongs to another model, or
      the model has an adapter already.
  """
  check_adapter(path)
  if model.config.adapter:
    raise UserError(f'the checkpoint has an adapter of its own, {model.config.adapter.kind}; '
                    f'export it, which merges its adapter, before {path} is added')
  try:
    adapter, weights = _read(model.config, _on_disk(as_path(path)))
    config = model.config.replace(adapter=adapter)
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
    raise UserError(f'{path} is not a usable adapter ({type(error).__name__}: {error})') from error
  decoder = model.decoder.clone(config=config)
  boxed = abstract_variables(decoder)[ADAPTER]
  arrays = nested(weights, sharding.unbox(boxed))
  placed = jax.tree.map(jax.device_put, arrays, sharding.state_shardings(boxed, model.mesh))
  return dataclasses.replace(model, decoder=decoder, source='',
                             variables={**model.variables, ADAPTER: placed})


def load_adapters(model: LanguageModel, paths: Mapping[str, str]) -> LanguageModel:
  """Returns `model` with several low-rank adapters; each row of a batch names its own.

  Args:
    model: a model without adapter.
    paths: directories with an adapter, by name.

  Raises:
    UserError: as `load_adapter` says; or an adapter is of a kind that cannot be used beside others.
  """
  return stack_adapters(model, {name: load_adapter(model, path) for name, path in paths.items()})


def _on_disk(folder: epath.Path) -> epath.Path:
  """Returns `folder`, or a copy of an adapter in a bucket."""
  if not is_remote(folder):
    return folder
  return as_path(local_copy(sorted(
      file for file in folder.iterdir() if file.suffix in ('.json', '.safetensors'))))


def _read(config: DecoderConfig, folder: epath.Path) -> tuple[AdapterConfig, Weights]:
  fields = read_json(folder / ADAPTER_CONFIG)
  if 'peft_type' not in fields and isinstance(fields.get('config'), dict):
    return read_bottleneck(config, fields, _tensors(folder / ADAPTER_HUB_WEIGHTS))
  kind = fields.get('peft_type')
  for name, values in _SUPPORTED.items():
    if fields.get(name) not in values:
      raise UserError(f'adapters with {name} = {fields[name]!r} are not supported')
  tensors = _tensors(folder / PEFT_WEIGHTS)
  if kind == 'PREFIX_TUNING':
    if tensors.keys() != {ia3_and_prefix.PROMPT}:
      raise UserError(f'a prefix must have the tensor {ia3_and_prefix.PROMPT} alone')
    return ia3_and_prefix.read_prefix(config, tensors[ia3_and_prefix.PROMPT])
  if kind not in _TENSORS:
    raise UserError(f'adapters of the type {kind} are not supported, only '
                    f'{", ".join((*_TENSORS, "PREFIX_TUNING"))} and bottlenecks of AdapterHub')
  found = _by_linear(config, kind, tensors)
  if kind == 'IA3':
    return ia3_and_prefix.read_ia3(config, found)
  read = low_rank.read_lora if kind == 'LORA' else low_rank.read_adalora
  return read(config, fields, found)


def _tensors(file: epath.Path) -> dict[str, np.ndarray]:
  """Returns the tensors of a safetensors file in float32."""
  if not file.is_file():
    raise UserError(f'there is no {file.name}; save the adapter again as safetensors')
  try:
    loaded = load_file(file)
  except (OSError, safetensors.SafetensorError) as error:
    raise UserError(f'{file.name} is not a complete safetensors file: {error}') from error
  return {name: one.astype(np.float32) for name, one in loaded.items()}


def _by_linear(config: DecoderConfig, kind: str, tensors: Mapping[str, np.ndarray]
               ) -> dict[tuple[Linear, int], dict[str, np.ndarray]]:
  """Returns the tensors of each linear layer of the model, after a check of their shapes."""
  known = by_name(config)
  found: dict[tuple[Linear, int], dict[str, np.ndarray]] = collections.defaultdict(dict)
  for name, tensor in tensors.items():
    match = _TENSOR.fullmatch(name.removeprefix(PREFIX))
    if match is None or match[2] not in _TENSORS[kind]:
      raise UserError(f'the tensor {name} does not belong to an adapter of the type {kind}')
    if match[1] not in known:
      raise UserError(f'the adapter is for {match[1]}, which is no linear layer of the blocks of '
                      'this model')
    found[known[match[1]]][match[2]] = tensor
  if not found:
    raise UserError('the adapter has no tensors')
  expected = ia3_and_prefix.expected_shape if kind == 'IA3' else low_rank.expected_shapes
  for (linear, layer), own in found.items():
    where = linear.name.format(layer)
    if missing := {*_TENSORS[kind]} - own.keys():
      raise UserError(f'the tensor {min(missing)} of {where} is missing')
    for name, shape in expected(config, linear, own).items():
      if own[name].shape != tuple(shape):
        raise UserError(f'{name} of {where} has the shape {own[name].shape}, but for this model it '
                        f'must be {tuple(shape)}')
  return dict(sorted(found.items(), key=lambda item: item[0][1]))
