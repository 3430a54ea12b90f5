"""The parameters of the blocks of a model, one after the other."""

import jax
import numpy as np

from toolformer_jax.models.decoder import BLOCKS
from toolformer_jax.models.kernels import Params, as_matrix, block_kernels
from toolformer_jax.models.language_model import LanguageModel


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


def kernels(block: Params) -> dict[str, np.ndarray]:
  """Returns the kernels of a block's matrix products as matrices [I, O], by path: views of them."""
  return {path: as_matrix(path, kernel) for path, kernel in block_kernels(block).items()}
