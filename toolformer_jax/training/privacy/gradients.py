"""The gradient of a batch of private texts: clipped for each text, added up, and noised."""

from typing import Any

import jax
import jax.numpy as jnp

from toolformer_jax.training.loss import SumsFn
from toolformer_jax.training.packing import PackedRows
from toolformer_jax.training.privacy.config import PrivacyConfig


def private_gradients(
    loss_sums: SumsFn, privacy: PrivacyConfig, params: Any, batch: PackedRows, *,
    batch_size: int, num_microbatches: int, dropout_key: jax.Array, noise_key: jax.Array | None,
    step: jax.Array,
) -> tuple[Any, jax.Array]:
  """Returns the noised mean gradient, and the mean cross-entropy of the batch's texts.

  The loss of a text is the mean of its tokens. The sum of the gradients is divided by the expected
  number of texts, because the actual one is private. The cross-entropy is not protected.

  Args:
    loss_sums: the loss of rows.
    privacy: clip norm and noise.
    params: what gets a gradient.
    batch: a text in each row; rows of padding alone do not count.
    batch_size: expected number of texts.
    num_microbatches: parts of the batch that are computed one after the other.
    dropout_key: of the step's dropout.
    noise_key: of the noise of all steps; secret.
    step: number of updates done.

  Raises:
    ValueError: there is no noise key.
  """
  if noise_key is None:
    raise ValueError('private gradients need a noise key')
  import jax_privacy  # slow to import
  def text_loss(params: Any, row: PackedRows, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    sums = loss_sums(params, row, key)
    weight_sum = jnp.maximum(sums.weight_sum, 1e-6)
    return sums.objective / weight_sum, sums.cross_entropy / weight_sum
  is_padding_R = ~(batch.segment_ids_RT != 0).any(-1)
  clipped_grad = jax_privacy.clipped_grad(
      text_loss, has_aux=True, l2_clip_norm=privacy.l2_clip_norm, batch_argnums=1, prng_argnum=2,
      microbatch_size=len(is_padding_R) // num_microbatches)
  grads, outputs = clipped_grad(params, batch, dropout_key, is_padding_example=is_padding_R)
  grads = add_noise(grads, privacy.noise_multiplier * privacy.l2_clip_norm,
                    jax.random.fold_in(noise_key, step))
  loss_R = jnp.where(is_padding_R, 0.0, outputs.aux)
  loss = loss_R.sum() / jnp.maximum((~is_padding_R).sum(), 1)
  return jax.tree.map(lambda grad: grad / batch_size, grads), loss


def add_noise(grads: Any, stddev: float, key: jax.Array) -> Any:
  """Returns `grads` plus independent normal noise of a standard deviation."""
  leaves, structure = jax.tree.flatten(grads)
  keys = jax.random.split(key, len(leaves))
  return jax.tree.unflatten(structure, [
      leaf + stddev * jax.random.normal(one, leaf.shape, leaf.dtype)
      for leaf, one in zip(leaves, keys, strict=True)])
