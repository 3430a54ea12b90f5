"""Weights of 4 bits for inference: two codes in a byte, and a scale for each group of inputs.

A weight is its code times the scale of its group, as `toolformer compress` stores it. Weights are
computed where they are used, a matrix at a time, and products are those of float32: this saves
memory.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.errors import UserError
from toolformer_jax.models.int8 import LOWEST_OF_4_BITS, kernel_codes, round_to_nearest
from toolformer_jax.sharding import on_one_device

_LARGEST = -LOWEST_OF_4_BITS * float(np.finfo(np.float16).max)
GROUP = 32  # inputs that share a scale; of larger groups in a file, the scale is repeated


def pack_rows(codes: np.ndarray) -> np.ndarray:
  """Returns codes [I, *outputs] with two neighbouring inputs in a byte, uint8 [I / 2, *outputs].

  Each code is stored plus 8, that of the first input in the lower half.
  """
  shifted = (codes - LOWEST_OF_4_BITS).astype(np.uint8)
  return shifted[::2] | shifted[1::2] << 4


def packed_after(x: jax.Array, packed: jax.Array) -> jax.Array:
  """Returns packed codes that are known no earlier than `x`, so that they are expanded no earlier.

  Else XLA may expand the matrices of all layers first, and keep them. A barrier is not enough on
  CPUs: XLA removes it before it orders operations, and then starts all that wait for nothing. So
  the codes depend on an activation, by a zero that XLA cannot know to be one. On several devices
  that would be a message for each matrix; the layers are in a loop there, which expands those of
  one at a time.

  Args:
    x: activations that are multiplied with the matrix, float32.
    packed: from `pack_rows`.
  """
  if not on_one_device():
    return jax.lax.optimization_barrier((x, packed))[1]
  bits = jax.lax.bitcast_convert_type(x[(0,) * x.ndim], jnp.uint32)
  zero = jax.lax.population_count(bits) >> 6  # at most 32 bits are set
  return packed | zero.astype(packed.dtype)


def unpack_rows(packed: jax.Array, scales: jax.Array) -> jax.Array:
  """Returns weights, float32 [I, *outputs].

  Args:
    packed: from `pack_rows`.
    scales: of the groups, [I / GROUP, *outputs].
  """
  halves = jnp.stack([packed & 15, packed >> 4], 1).astype(jnp.int8) + LOWEST_OF_4_BITS
  groups = halves.astype(jnp.float32).reshape(len(scales), GROUP, *scales.shape[1:])
  return (groups * scales.astype(jnp.float32)[:, None]).reshape(-1, *scales.shape[1:])


def check_largest(weights: Any) -> None:
  """Raises UserError if a weight is so large that its scale is no finite float16."""
  largest = max(float(weights.max()), -float(weights.min()))
  if largest > _LARGEST:
    raise UserError(f'a weight of {largest:.3g} is too large for 4 bits, whose scales have 16 (at '
                    f'most {_LARGEST:,.0f}); take 8 bits')


def round_kernel(kernel: np.ndarray, dtype: np.dtype, scale_dims: int
                 ) -> tuple[np.ndarray, np.ndarray]:
  """Returns the codes of a kernel and their scales, as a model in int8 or int4 has them.

  Args:
    kernel: [*inputs, *outputs], float32.
    dtype: of the codes: int8, or uint8 for two of 4 bits in a byte.
    scale_dims: number of dimensions of the scales: [*outputs], in 4 bits [groups, *outputs].

  Raises:
    UserError: a weight is too large for 4 bits.
  """
  if dtype == np.int8:
    return kernel_codes(kernel, scale_dims)
  check_largest(kernel)
  outputs = kernel.shape[kernel.ndim - scale_dims + 1:]
  codes_OI, scales_OG = round_to_nearest(kernel.reshape(-1, math.prod(outputs)).T, 4, GROUP)
  return (pack_rows(codes_OI.T.reshape(-1, *outputs)), scales_OG.T.reshape(-1, *outputs))
