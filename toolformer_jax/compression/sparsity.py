"""Makes weights zero: unstructured, or two of each four."""

import jax
import numpy as np

from toolformer_jax.compression.block_params import blocks_of, kernels, with_blocks
from toolformer_jax.compression.calibration import LayerStatistics, walk
from toolformer_jax.compression.calibration_loss import sum_of_changes
from toolformer_jax.compression.config import Pattern
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.kernels import Params, with_kernels
from toolformer_jax.models.language_model import LanguageModel


def mask_of(scores_IO: np.ndarray, sparsity: float, pattern: Pattern, by_output: bool
            ) -> np.ndarray:
  """Returns which weights of a matrix are kept, bool [I, O].

  Args:
    scores_IO: how much each weight matters.
    sparsity: share of the weights that are removed: those of the lowest scores.
    pattern: 'unstructured', or '2:4' for the lowest two of each four neighbouring inputs.
    by_output: compare the weights of each output rather than those of the whole matrix.

  Raises:
    UserError: the number of inputs is not a multiple of four, for 2:4.
  """
  inputs, outputs = scores_IO.shape
  if pattern == '2:4' and inputs % 4:
    raise UserError(f'a matrix with {inputs} inputs has no pattern 2:4')
  rows = {'2:4': scores_IO.T.reshape(-1, 4), 'unstructured': scores_IO.T}[pattern]
  if pattern == 'unstructured' and not by_output:
    rows = rows.reshape(1, -1)
  removed = round(sparsity * rows.shape[1])
  mask = np.ones(rows.shape, bool)
  np.put_along_axis(mask, np.argsort(rows, 1, kind='stable')[:, :removed], False, 1)
  return mask.reshape(outputs, inputs).T


def prune_by_magnitude(model: LanguageModel, sparsity: float, pattern: Pattern) -> LanguageModel:
  """Returns the model without the smallest weights of each matrix of a block."""
  layers = [_masked(block, {path: np.abs(kernel_IO) for path, kernel_IO in kernels(block).items()},
                    sparsity, pattern, by_output=False)
            for block in blocks_of(model)]
  return with_blocks(model, layers)


def prune_by_wanda(model: LanguageModel, rows_RT: np.ndarray, sparsity: float, pattern: Pattern
                   ) -> LanguageModel:
  """Returns the model without the weights of each output that matter least to it (Wanda).

  Each block sees what the pruned blocks before it make of the calibration rows.
  """
  layers: list[Params] = []
  def prune(layer: int, block: Params, statistics: LayerStatistics) -> Params:
    scores = {path: np.abs(kernel_IO) * np.sqrt(statistics.inputs[path])[:, None]
              for path, kernel_IO in kernels(block).items()}
    layers.append(_masked(block, scores, sparsity, pattern, by_output=True))
    return layers[-1]
  walk(model, rows_RT, prune)
  return with_blocks(model, layers)


def prune_by_gradient(model: LanguageModel, rows_RT: np.ndarray, sparsity: float, pattern: Pattern
                      ) -> LanguageModel:
  """Returns the model without the weights of each output that change the loss least.

  That is to first order: weight times gradient, without its sign, summed over calibration rows.
  """
  blocks = blocks_of(model)
  totals = sum_of_changes(model, rows_RT, list(kernels(blocks[0])), _size)
  layers = [_masked(block, {path: totals[path][layer].reshape(kernel_IO.shape)
                            for path, kernel_IO in kernels(block).items()},
                    sparsity, pattern, by_output=True)
            for layer, block in enumerate(blocks)]
  return with_blocks(model, layers)


def _size(config: DecoderConfig, path: str, changes: jax.Array) -> jax.Array:
  return abs(changes)


def _masked(block: Params, scores: dict[str, np.ndarray], sparsity: float, pattern: Pattern,
            by_output: bool) -> Params:
  matrices = kernels(block)
  return with_kernels(block, {
      path: np.where(mask_of(scores_IO, sparsity, pattern, by_output), matrices[path], 0)
      for path, scores_IO in scores.items()})
