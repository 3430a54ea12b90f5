"""Samples tokens, with temperature and nucleus, independently of the rest of the batch."""

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK = 256


def sample(
    logits_BV: jax.Array, seeds_BW: jax.Array, count_B: jax.Array,
    temperature_B: jax.Array | np.ndarray, top_p_B: jax.Array | np.ndarray,
) -> jax.Array:
  """Samples W ids from the distribution of each row, [B, W] int32.

  Args:
    logits_BV: float32; -inf for ids that must not be sampled.
    seeds_BW: uint32. A sample depends only on its logits and seed, and on the count, temperature
      and top_p of its row.
    count_B: number of tokens of the text so far, int32; folded into the seeds.
    temperature_B: float32; 0 for the likeliest id.
    top_p_B: float32; sample from the likeliest ids whose probabilities add up to this, with all
      that are as likely as the last of them (nucleus sampling, Holtzman et al. 2020); 1 for all.
  """
  def likeliest() -> jax.Array:
    return jnp.broadcast_to(_argmax(logits_BV)[:, None], seeds_BW.shape)
  def sampled() -> jax.Array:
    temperature_B1 = jnp.where(temperature_B > 0, temperature_B, 1)[:, None]
    weights_BV = jnp.exp((logits_BV - logits_BV.max(-1, keepdims=True)) / temperature_B1)
    def with_nucleus() -> jax.Array:
      return jnp.where(top_p_B[:, None] < 1, nucleus(weights_BV, top_p_B), weights_BV)
    weights_BV = jax.lax.cond((top_p_B < 1).any(), with_nucleus, lambda: weights_BV)
    sampled_BW = _invert(weights_BV, _uniform(seeds_BW, count_B))
    return jnp.where(temperature_B[:, None] > 0, sampled_BW, likeliest())
  # A batch that is all greedy skips the work of sampling.
  return jax.lax.cond((temperature_B > 0).any(), sampled, likeliest)


def _argmax(logits_BV: jax.Array) -> jax.Array:
  """Returns the argmax [B], int32, from a maximum and a minimum: XLA vectorises these on CPUs."""
  V = logits_BV.shape[-1]
  max_B1 = logits_BV.max(-1, keepdims=True)
  return jnp.where(logits_BV == max_B1, jnp.arange(V, dtype=jnp.int32), V - 1).min(-1)


def nucleus(weights_BV: jax.Array, top_p_B: jax.Array | np.ndarray) -> jax.Array:
  """Returns the weights with 0 in place of those outside the nucleus, [B, V] float32.

  The smallest weight inside is found by bisection over the bits of positive floats, which have the
  order of their values: 31 sums instead of sorting the vocabulary.

  Args:
    weights_BV: probabilities up to a factor, 0 to 1, float32.
    top_p_B: probability of the nucleus, float32.
  """
  wanted_B = top_p_B * weights_BV.sum(-1)
  def at_least(bits_B: jax.Array) -> jax.Array:
    least_B1 = jax.lax.bitcast_convert_type(bits_B, jnp.float32)[:, None]
    return jnp.where(weights_BV >= least_B1, weights_BV, 0)
  def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    low_B, high_B = bounds
    middle_B = low_B + (high_B - low_B) // 2
    enough_B = at_least(middle_B).sum(-1) >= wanted_B
    return jnp.where(enough_B, middle_B, low_B), jnp.where(enough_B, high_B, middle_B)
  zeros_B = jnp.zeros(weights_BV.shape[0], jnp.int32)
  above_one = jax.lax.bitcast_convert_type(jnp.float32(2), jnp.int32)
  low_B, _ = jax.lax.fori_loop(0, 31, halve, (zeros_B, zeros_B + above_one))
  return at_least(low_B)


def _uniform(seeds_BW: jax.Array, count_B: jax.Array) -> jax.Array:
  """Returns a number in [0, 1) for each sample, [B, W]; noise for every id would be slower."""
  def one(seed: jax.Array, count: jax.Array) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), count))
  return jax.vmap(jax.vmap(one, in_axes=(0, None)))(seeds_BW, count_B)


def _invert(weights_BV: jax.Array, uniform_BW: jax.Array) -> jax.Array:
  """Returns the ids [B, W] at which the cumulative weights exceed the given shares of their sum.

  The sum runs over blocks, then within one: a cumulative sum over the vocabulary is slow.
  """
  B, V = weights_BV.shape
  weights_BXY = jnp.pad(weights_BV, ((0, 0), (0, -V % _BLOCK))).reshape(B, -1, _BLOCK)
  own_BX = weights_BXY.sum(-1)
  sums_BX = jnp.cumsum(own_BX, -1)
  target_BW = uniform_BW * sums_BX[:, -1:]
  block_BW = _first_above(sums_BX[:, None], own_BX[:, None], target_BW)
  before_BW = jnp.take_along_axis(sums_BX, jnp.maximum(block_BW - 1, 0), 1)
  rest_BW = target_BW - jnp.where(block_BW > 0, before_BW, 0)
  own_BWY = jnp.take_along_axis(weights_BXY, block_BW[..., None], 1)
  inside_BW = _first_above(jnp.cumsum(own_BWY, -1), own_BWY, rest_BW)
  return (block_BW * _BLOCK + inside_BW).astype(jnp.int32)


def _first_above(sums_BWZ: jax.Array, own_BWZ: jax.Array, target_BW: jax.Array) -> jax.Array:
  """Returns the first index with a weight of its own at which the sum exceeds the target.

  Sums are rounded: they may rise where there is no weight, and end below the target. Then it is the
  last index with a weight.
  """
  weighs_BWZ = own_BWZ > 0
  above_BWZ = weighs_BWZ & (sums_BWZ > target_BW[..., None])
  last_BW = weighs_BWZ.shape[-1] - 1 - weighs_BWZ[..., ::-1].argmax(-1)
  return jnp.where(above_BWZ.any(-1), above_BWZ.argmax(-1), last_BW)
