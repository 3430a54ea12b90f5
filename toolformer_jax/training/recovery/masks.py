"""Keeps the zeros of a pruned model while all other weights are trained."""

from typing import Any

import jax
import jax.numpy as jnp

from toolformer_jax.errors import UserError
from toolformer_jax.models.decoder import BLOCKS
from toolformer_jax.models.kernels import block_kernels, with_kernels


@jax.jit
def nonzero_masks(params: dict[str, Any]) -> dict[str, jax.Array]:
  """Returns which weights in the matrix products of blocks are not zero, bool by their paths.

  In a checkpoint of few bits, weights that were rounded to zero count as zeros too, and so stay
  zero. Prune a model, train it, and round it last.
  """
  return {path: kernel != 0 for path, kernel in block_kernels(params[BLOCKS]).items()}


def check_has_zeros(params: dict[str, Any]) -> None:
  """Raises UserError if no weight in the matrix products of blocks is zero."""
  if _all_nonzero(params):
    raise UserError('FinetuneConfig.keep_zeros has no effect: the model has no weights that are '
                    'zero; prune it first, with CompressionConfig.sparsity, or leave keep_zeros '
                    'out')


@jax.jit
def _all_nonzero(params: dict[str, Any]) -> jax.Array:
  return jnp.stack([mask.all() for mask in nonzero_masks(params).values()]).all()


def masked_gradients(grads: dict[str, Any], masks: dict[str, jax.Array]) -> dict[str, Any]:
  """Returns the gradients with zeros where a mask is False.

  That is enough to keep a weight at zero: AdamW's moments stay zero, and zero does not decay.

  Args:
    grads: in the form of the parameters.
    masks: from `nonzero_masks` of the model that the training begins with. A weight that is zero
      later, by chance, is trained as before.
  """
  kernels = block_kernels(grads[BLOCKS])
  changed = {path: jnp.where(mask, kernels[path], 0) for path, mask in masks.items()}
  return grads | {BLOCKS: with_kernels(grads[BLOCKS], changed)}
