"""Rounds the weights of a matrix so that its product changes least (GPTQ, Frantar et al. 2023)."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from toolformer_jax.models.int8 import group_scales, to_codes

# Share of the mean of the diagonal: ten times that of the paper, for calibration texts of few
# tokens. It was chosen on SmolLM2-135M, with 8,192 tokens, by other texts of their corpus.
_DAMPING = 0.1
_BLOCK = 128  # rows that are rounded before all later ones are corrected
# Scales that are tried, as factors of the one that makes the largest weight of a group the code -8.
_FACTORS = [sign * factor for factor in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 1.05)
            for sign in (1, -1)]


def gptq(kernel_IO: np.ndarray, products_II: np.ndarray, bits: int, group_size: int
         ) -> tuple[np.ndarray, np.ndarray]:
  """Returns rounded weights, float32 [I, O], and the scale of each group, [I / group_size, O].

  The inputs are rounded one after the other, the largest first. The error of each is made up for by
  the weights of those that come later, as far as they are correlated.

  Args:
    kernel_IO: the weights.
    products_II: sum of the outer products of the inputs.
    bits: 4 or 8.
    group_size: number of neighbouring inputs that share a scale; it divides I.
  """
  squares_I = products_II.diagonal()
  scales_GO = fitted_scales(kernel_IO, squares_I, bits, group_size)
  order_I = np.argsort(-squares_I, kind='stable')
  scales_IO = scales_GO.repeat(group_size, 0)[order_I]
  rounded_IO = np.empty(kernel_IO.shape, np.float32)
  rounded_IO[order_I] = _rounded(kernel_IO[order_I].astype(np.float32), scales_IO,
                                 _inverse_factor(products_II[np.ix_(order_I, order_I)]), bits)
  return rounded_IO, scales_GO


def fitted_scales(kernel_IO: np.ndarray, squares_I: np.ndarray, bits: int, group_size: int
                  ) -> np.ndarray:
  """Returns the scale of each group of inputs, [I / group_size, O].

  In 4 bits it is the one of several that changes the products least if weights are rounded to the
  nearest: an error counts by the square of its input.

  Args:
    kernel_IO, bits, group_size: see `gptq`.
    squares_I: sum of the squares of each input.
  """
  groups_GNO = kernel_IO.astype(np.float32).reshape(-1, group_size, kernel_IO.shape[1])
  scales_GO = group_scales(groups_GNO, bits, axis=1)
  if bits == 8:
    return scales_GO
  squares_GN1 = squares_I.astype(np.float32).reshape(-1, group_size, 1)
  best_GO, smallest_GO = scales_GO, np.full(scales_GO.shape, np.inf, np.float32)
  for factor in _FACTORS:
    with np.errstate(over='ignore'):
      tried_GO = (factor * scales_GO.astype(np.float32)).astype(np.float16)
    tried_G1O = tried_GO[:, None]
    rounded_GNO = to_codes(groups_GNO, tried_G1O, bits) * tried_G1O.astype(np.float32)
    errors_GO = (squares_GN1 * (groups_GNO - rounded_GNO)**2).sum(1)
    best_GO = np.where(errors_GO < smallest_GO, tried_GO, best_GO)
    smallest_GO = np.minimum(errors_GO, smallest_GO)
  return best_GO


def _rounded(weights_IO: np.ndarray, scales_IO: np.ndarray, factor_II: np.ndarray, bits: int
             ) -> np.ndarray:
  """Returns weights that are rounded one input after the other; changes `weights_IO`."""
  inputs = len(weights_IO)
  for start in range(0, inputs, _BLOCK):
    end = min(start + _BLOCK, inputs)
    errors_BO = np.empty_like(weights_IO[start:end])
    for i in range(start, end):
      rounded_O = to_codes(weights_IO[i], scales_IO[i], bits) * scales_IO[i].astype(np.float32)
      errors_BO[i - start] = (weights_IO[i] - rounded_O) / factor_II[i, i]
      weights_IO[i + 1:end] -= np.outer(factor_II[i, i + 1:end], errors_BO[i - start])
      weights_IO[i] = rounded_O
    weights_IO[end:] -= factor_II[start:end, end:].T @ errors_BO
  return weights_IO


def _inverse_factor(products_II: np.ndarray) -> np.ndarray:
  """Returns the upper Cholesky factor of the inverse of the damped products, float32."""
  damped_II = products_II.astype(np.float64)
  diagonal_I = damped_II.diagonal().copy()
  # An input that is always zero has no correlations, and its weight is rounded by itself.
  mean = diagonal_I.mean() or 1.0
  damped_II[np.diag_indices(len(diagonal_I))] += _DAMPING * mean
  inverse_II = cho_solve(cho_factor(damped_II), np.eye(len(diagonal_I)))
  return np.linalg.cholesky(inverse_II).T.astype(np.float32)
