"""Adversarial training: the loss of texts whose embeddings are moved to where they are harder.

The fast gradient method of Miyato et al. 2017, "Adversarial Training Methods for Semi-Supervised
Text Classification", section 3: each text's embeddings move along the gradient of its loss.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.training.packing import PackedRows

# Returns the loss and a metric of: parameters, offsets of the embeddings (or None), rows, a key.
LossFn = Callable[[Any, jax.Array | None, PackedRows, jax.Array], tuple[jax.Array, jax.Array]]
# Returns the gradients for the parameters, and the metric, of: parameters, rows, a key.
GradFn = Callable[[Any, PackedRows, jax.Array], tuple[Any, jax.Array]]


def adversarial_grad(loss_fn: LossFn, epsilon: float, embed_dim: int) -> GradFn:
  """Returns the gradient of the mean of the losses with and without adversarial offsets.

  With `epsilon` 0 it is the gradient of the loss. The metric is that of the rows as they are.

  Args:
    loss_fn: the loss.
    epsilon: the L2 norm of each text's offsets.
    embed_dim: size of an embedding.
  """
  def plain(params: Any, rows: PackedRows, key: jax.Array) -> tuple[Any, jax.Array]:
    return jax.grad(loss_fn, has_aux=True)(params, None, rows, key)
  def adversarial(params: Any, rows: PackedRows, key: jax.Array) -> tuple[Any, jax.Array]:
    zeros_RTD = jnp.zeros((*rows.input_tokens_RT.shape, embed_dim), jnp.float32)
    (grads, slope_RTD), metric = jax.grad(loss_fn, (0, 1), has_aux=True)(
        params, zeros_RTD, rows, key)
    offsets_RTD = adversarial_offsets(slope_RTD, rows.segment_ids_RT, epsilon)
    moved_grads, _ = jax.grad(loss_fn, has_aux=True)(params, offsets_RTD, rows, key)
    return jax.tree.map(_mean, grads, moved_grads), metric
  return adversarial if epsilon else plain


def _mean(one: jax.Array, other: jax.Array) -> jax.Array:
  return (one.astype(jnp.float32) + other) / 2


def adversarial_offsets(slope_RTD: jax.Array, segment_ids_RT: jax.Array | np.ndarray,
                        epsilon: float
                        ) -> jax.Array:
  """Returns the offsets, [R, T, D]: the gradient, scaled to the norm `epsilon` in each text.

  Args:
    slope_RTD: gradient of the loss for the embeddings.
    segment_ids_RT: the text of each token; the texts of a row do not change each other's offsets.
    epsilon: the norm.
  """
  def square_norms(squares_T: jax.Array, segment_ids_T: Any) -> jax.Array:
    num_segments = len(squares_T) + 1
    return jax.ops.segment_sum(squares_T, segment_ids_T, num_segments)[segment_ids_T]
  squares_RT = (slope_RTD**2).sum(-1)
  norms_RT = jnp.sqrt(jax.vmap(square_norms)(squares_RT, segment_ids_RT))
  return epsilon * slope_RTD / jnp.maximum(norms_RT, 1e-30)[..., None]
