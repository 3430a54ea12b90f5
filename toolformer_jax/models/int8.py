"""Integers of 8 bits for inference: codes of weights and of activations, and products of both.

A weight is its code times the scale of its output, as `toolformer compress` stores it. An
activation is two codes times the scale of its token, the second of them for what the first one
leaves. A product sums codes exactly, in int32, and scales the sums. No scale depends on other
tokens, so that a token's result does not depend on the batch.

With the first code alone, products of many tokens take two thirds of the time. But a few
activations are a thousand times larger than the others of their token, which are then rounded to
almost nothing: in SmolLM2-135M that changed a token's log-probability by 0.20 nats on average, and
two codes by 0.05, as much as the rounding of the weights. And where two programs round an
activation differently, as its last bits differ, the results differed by up to 0.9 nats, not 0.005.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.models.ops import einsum

KERNEL_SCALE = 'kernel_scale'  # name of the scales of a kernel of codes
_HIGHEST = 127  # -128 is not used: its negative is no code
LOWEST_OF_4_BITS = -8
_FINER = 2 * _HIGHEST  # the second code of an activation has steps that are finer by this factor
# XLA on CPUs has fast products of int8 matrices for this many rows or more; a product of one row
# takes 5 times as long as one of 8 rows.
_MIN_ROWS = 8


def group_scales(groups: Any, bits: int, axis: int = -1) -> Any:
  """Returns the scale of each group of weights, as it is stored.

  In 4 bits the largest weight becomes the code -8, which no other sign reaches (as in Q4_0 of
  llama.cpp); in 8 bits it becomes 127 or -127.

  Args:
    groups: weights, an array of numpy or JAX.
    bits: 4 or 8.
    axis: of the weights of a group, which the scales do not have.
  """
  xp = _namespace(groups)
  # XLA would multiply by the rounded reciprocal of a constant, and may leave out the rounding to
  # float16. The barrier makes it divide and round.
  exactly = jax.lax.optimization_barrier if xp is jnp else lambda x: x
  if bits == 8:
    largest = xp.abs(groups).max(axis)
    largest, divisor = exactly((largest, xp.full_like(largest, _HIGHEST)))
    return (largest / divisor).astype(np.float32)
  places = xp.abs(groups).argmax(axis, keepdims=True)
  largest = xp.take_along_axis(groups, places, axis).squeeze(axis)
  return exactly((largest / LOWEST_OF_4_BITS).astype(np.float16))


def to_codes(weights: Any, scales: Any, bits: int) -> Any:
  """Returns the nearest codes of weights, int8; a group whose scale is zero gets zeros.

  Args:
    weights: an array of numpy or JAX.
    scales: of the same kind; broadcast to the weights.
    bits: 4 or 8.
  """
  xp = _namespace(weights)
  lowest, highest = (-_HIGHEST, _HIGHEST) if bits == 8 else (LOWEST_OF_4_BITS, 7)
  scales = scales.astype(np.float32)
  ratio = weights / xp.where(scales == 0, np.float32(np.inf), scales)
  return xp.clip(xp.rint(ratio), lowest, highest).astype(np.int8)


def _namespace(x: Any) -> Any:
  """Returns the functions for an array: those of JAX, or of numpy."""
  return jnp if isinstance(x, jax.Array) else np


def round_to_nearest(matrix_OI: np.ndarray, bits: int, group_size: int
                     ) -> tuple[np.ndarray, np.ndarray]:
  """Returns the codes [O, I] of a matrix, int8, and the scales of its groups of inputs [O, G]."""
  scales_OG = group_scales(matrix_OI.reshape(len(matrix_OI), -1, group_size), bits)
  return to_codes(matrix_OI, scales_OG.repeat(group_size, 1), bits), scales_OG


def kernel_codes(kernel: np.ndarray, num_outputs: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the codes of a kernel, int8, and the scale of each output.

  Args:
    kernel: [*inputs, *outputs], float32.
    num_outputs: number of dimensions of the outputs, which the scales have.
  """
  outputs = kernel.shape[kernel.ndim - num_outputs:]
  matrix_IO = kernel.reshape(-1, math.prod(outputs))
  scales_O = group_scales(matrix_IO.T, 8)
  return to_codes(matrix_IO, scales_O, 8).reshape(kernel.shape), scales_O.reshape(outputs)


def int8_einsum(equation: str, x: jax.Array, codes: jax.Array, scales: jax.Array) -> jax.Array:
  """Returns the einsum of activations with a kernel, float32.

  Args:
    equation: such as 'btd,dnh->btnh': rows and tokens first, then what is contracted.
    x: activations, float32.
    codes: of the kernel, int8.
    scales: of the kernel's outputs, float32.
  """
  rows, tokens = x.shape[:2]
  x_codes, x_scales = _activation_codes(x)
  missing = -(-_MIN_ROWS // rows) - x_codes.shape[1]
  if missing > 0:
    x_codes = jnp.pad(x_codes, [(0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2)])
  sums = einsum(equation, 'int32', x_codes, codes)
  total = sums[:, :tokens].astype(jnp.float32)
  total += sums[:, tokens:2 * tokens].astype(jnp.float32) * (1 / _FINER)
  return total * (x_scales.reshape(rows, tokens, *[1] * scales.ndim) * scales)


def _activation_codes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns two codes of each activation, [rows, 2 * tokens, ...], and the scales of the tokens."""
  inputs = tuple(range(2, x.ndim))
  scales = jnp.maximum(jnp.abs(x).max(inputs, keepdims=True), 1e-30) / _HIGHEST
  ratio = x * (1 / scales)  # one division for each token
  first = jnp.round(ratio)
  second = jnp.round((ratio - first) * _FINER)
  return jnp.concatenate([first.astype(jnp.int8), second.astype(jnp.int8)], 1), scales
