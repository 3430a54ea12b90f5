"""The parameters of the blocks of a model, one after the other."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from toolformer_jax.models.decoder import BLOCKS
from toolformer_jax.models.language_model import LanguageModel

Params = dict[str, Any]


def blocks_of(model: LanguageModel) -> list[Params]:
  """Returns the parameters of each block, as arrays of numpy."""
  stacked = jax.tree.map(np.asarray, model.variables['params'][BLOCKS])
  return [jax.tree.map(lambda x, layer=layer: x[layer], stacked)
          for layer in range(model.config.layers)]


def with_blocks(model: LanguageModel, layers: list[Params]) -> LanguageModel:
  """Returns the model with other parameters of its blocks, one after the other."""
  params = model.variables['params'] | {BLOCKS: jax.tree.map(lambda *x: np.stack(x), *layers)}
  return LanguageModel.from_variables(
      model.config, {'params': params}, model.tokenizer, model.mesh)


def input_size(path: str, kernel: np.ndarray) -> int:
  """Returns the number of inputs of a matrix product, I: those that its kernel contracts."""
  return kernel.shape[0] * (kernel.shape[1] if path == 'attention/out' else 1)


def kernels(block: Params) -> dict[str, np.ndarray]:
  """Returns the kernels of a block's matrix products as matrices [I, O], by path: views of them."""
  found = {f'{part}/{name}': product['kernel'] for part in ('attention', 'mlp')
           for name, product in block[part].items() if 'kernel' in product}
  return {path: kernel.reshape(input_size(path, kernel), -1) for path, kernel in found.items()}


def with_kernels(block: Params, changed: Mapping[str, np.ndarray | jax.Array]) -> Params:
  """Returns a block, or stacked blocks, with other kernels by their paths, such as [I, O]."""
  block = dict(block)
  for path, kernel_IO in changed.items():
    part, name = path.split('/')
    shape = block[part][name]['kernel'].shape
    block[part] = block[part] | {
        name: block[part][name] | {'kernel': kernel_IO.reshape(shape)}}
  return block
