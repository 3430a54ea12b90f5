"""Rounds the weights of a matrix so that its product changes least (GPTQ, Frantar et al. 2023)."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from toolformer_jax.models.int8 import group_scales, to_codes

_DAMPING = 0.01  # share of the mean of the diagonal, as in the paper
_BLOCK = 128  # rows that are rounded before all later ones are corrected


def gptq(kernel_IO: np.ndarray, products_II: np.ndarray, bits: int, group_size: int
         ) -> tuple[np.ndarray, np.ndarray]:
  """Returns rounded weights, float32 [I, O], and the scale of each group, [I / group_size, O].

  The inputs are rounded one after the other. The error of each is made up for by the weights of
  those that come later, as far as they are correlated.

  Args:
    kernel_IO: the weights.
    products_II: sum of the outer products of the inputs.
    bits: 4 or 8.
    group_size: number of neighbouring inputs that share a scale; it divides I.
  """
  weights_IO = kernel_IO.astype(np.float32).copy()
  factor_II = _inverse_factor(products_II)
  scales_GO = []
  inputs = len(weights_IO)
  block = min(group_size, _BLOCK)
  for start in range(0, inputs, block):
    end = min(start + block, inputs)
    if start % group_size == 0:
      scales_GO.append(group_scales(weights_IO[start:start + group_size].T, bits))
    errors_BO = np.empty_like(weights_IO[start:end])
    for i in range(start, end):
      rounded_O = to_codes(weights_IO[i], scales_GO[-1], bits) * scales_GO[-1].astype(np.float32)
      errors_BO[i - start] = (weights_IO[i] - rounded_O) / factor_II[i, i]
      weights_IO[i + 1:end] -= np.outer(factor_II[i, i + 1:end], errors_BO[i - start])
      weights_IO[i] = rounded_O
    weights_IO[end:] -= factor_II[start:end, end:].T @ errors_BO
  return weights_IO, np.stack(scales_GO)


def _inverse_factor(products_II: np.ndarray) -> np.ndarray:
  """Returns the upper Cholesky factor of the inverse of the damped products, float32."""
  damped_II = products_II.astype(np.float64)
  diagonal_I = damped_II.diagonal().copy()
  # An input that is always zero has no correlations, and its weight is rounded by itself.
  mean = diagonal_I.mean() or 1.0
  damped_II[np.diag_indices(len(diagonal_I))] += _DAMPING * mean
  inverse_II = cho_solve(cho_factor(damped_II), np.eye(len(diagonal_I)))
  return np.linalg.cholesky(inverse_II).T.astype(np.float32)
