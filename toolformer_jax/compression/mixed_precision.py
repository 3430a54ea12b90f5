"""Chooses for each layer whether its weights have 4 or 8 bits, under a budget of bytes."""

from collections.abc import Sequence

import numpy as np

from toolformer_jax.compression.bits import Rounding, packed_bytes
from toolformer_jax.compression.block_params import blocks_of, kernels, with_blocks
from toolformer_jax.compression.calibration_loss import calibration_loss
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.int8 import round_to_nearest
from toolformer_jax.models.kernels import with_kernels
from toolformer_jax.models.language_model import LanguageModel


def check_budget(config: DecoderConfig, group_size: int, budget: int) -> None:
  """Checks that a model fits into a budget.

  Args:
    config: of the model.
    group_size: number of inputs that share a scale in 4 bits.
    budget: largest size of the weight files, in bytes.

  Raises:
    UserError: they are larger even with 4 bits in every layer.
  """
  least = _bytes_with([4] * config.layers, config, group_size)
  if least > budget:
    raise UserError(f'CompressionConfig.weight_bytes is {budget}, and with 4 bits in every layer '
                    f'the weights have {least} bytes')


def rounding_costs(model: LanguageModel, rows_RT: np.ndarray, group_size: int) -> list[float]:
  """Returns how much the loss of calibration rows rises if one layer alone has 4 bits.

  This takes a pass over the rows for each layer.

  Args:
    model: the model, without adapters.
    rows_RT: tokens, from `calibration_rows`.
    group_size: number of inputs that share a scale.
  """
  blocks = blocks_of(model)
  rounding = Rounding((4,) * len(blocks), group_size, [])
  before = calibration_loss(model, rows_RT)
  costs = []
  for layer, block in enumerate(blocks):
    changed = {}
    for path, kernel_IO in kernels(block).items():
      bits, size = rounding.of_matrix(layer, len(kernel_IO))
      codes_OI, scales_OG = round_to_nearest(kernel_IO.T, bits, size)
      changed[path] = (codes_OI * scales_OG.astype(np.float32).repeat(size, 1)).T
    layers = [*blocks[:layer], with_kernels(block, changed), *blocks[layer + 1:]]
    costs.append(calibration_loss(with_blocks(model, layers), rows_RT) - before)
  return costs


def choose_bits(costs: Sequence[float], config: DecoderConfig, group_size: int, budget: int
                ) -> tuple[int, ...]:
  """Returns 4 or 8 bits for each layer, so that the weight files fit into the budget.

  As few layers as possible have 4 bits. They are those of the lowest cost: all layers have the same
  shapes, and so each saves as many bytes as any other.

  Args:
    costs: of each layer, from `rounding_costs`.
    config, group_size, budget: see `check_budget`.
  """
  bits = [8] * config.layers
  for layer in np.argsort(costs, kind='stable'):
    if _bytes_with(bits, config, group_size) <= budget:
      break
    bits[layer] = 4
  return tuple(bits)


def fits(config: DecoderConfig, budget: int) -> bool:
  """Returns whether a model with 8 bits in every layer fits into a budget of bytes."""
  return _bytes_with([8] * config.layers, config, 1) <= budget


def _bytes_with(bits: Sequence[int], config: DecoderConfig, group_size: int) -> int:
  return packed_bytes(config, Rounding(tuple(bits), group_size, []))
