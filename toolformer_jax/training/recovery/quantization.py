"""Quantization-aware training: the loss is that of the rounded weights (QAT).

A step computes loss and gradients with the values that `toolformer compress` stores with the
rounding 'nearest', and applies the gradients to the weights as they are (the straight-through
estimator, Bengio et al. 2013). So the model that is compressed afterwards is the one that was
trained.
"""

from typing import Any

import jax
import jax.numpy as jnp

from toolformer_jax.models.decoder import BLOCKS
from toolformer_jax.models.int8 import group_scales, to_codes
from toolformer_jax.models.kernels import as_matrix, block_kernels, with_kernels
from toolformer_jax.training.recovery.config import QatConfig


def rounded_params(params: dict[str, Any], config: QatConfig) -> dict[str, Any]:
  """Returns the parameters with matrices that are rounded to the nearest codes, float32.

  Matrices of blocks have the bits of `config`, embeddings and the projection to the vocabulary 8.
  """
  blocks = params[BLOCKS]
  changed = {}
  for path, kernel in block_kernels(blocks).items():
    kernel_LIO = as_matrix(path, kernel)
    changed[path] = _rounded(kernel_LIO, *config.grid(kernel_LIO.shape[1]))
  embedding_DV = params['embedding'].T
  rounded = params | {BLOCKS: with_kernels(blocks, changed),
                      'embedding': _rounded(embedding_DV, 8, len(embedding_DV)).T}
  if 'head' in params:
    kernel_DV = params['head']['kernel']
    rounded['head'] = params['head'] | {'kernel': _rounded(kernel_DV, 8, len(kernel_DV))}
  return rounded


def _rounded(matrix_XIO: jax.Array, bits: int, group_size: int) -> jax.Array:
  """Returns codes times scales of a matrix, or of several; `group_size` inputs share a scale."""
  *stack, inputs, outputs = matrix_XIO.shape
  groups_XGSO = matrix_XIO.reshape(*stack, inputs // group_size, group_size, outputs)
  scales_XG1O = group_scales(groups_XGSO, bits, axis=-2)[..., None, :].astype(jnp.float32)
  values_XGSO = to_codes(groups_XGSO, scales_XG1O, bits).astype(jnp.float32) * scales_XG1O
  return values_XGSO.reshape(matrix_XIO.shape)
