"""Numbers that are not finite or too large, which are refused before anything is written."""

from collections.abc import Iterable
from typing import Any

import jax

from toolformer_jax.checkpoints.tensors import is_finite
from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.errors import UserError
from toolformer_jax.models.decoder import BLOCKS
from toolformer_jax.models.int4 import check_largest
from toolformer_jax.models.kernels import block_kernels
from toolformer_jax.models.language_model import LanguageModel


def check_weights(model: LanguageModel, config: CompressionConfig) -> None:
  """Checks that the weights of a model, without adapters, are numbers that can be stored.

  Raises:
    UserError: a weight is not finite, or too large for 4 bits if the configuration has them.
  """
  params = model.variables['params']
  for path, array in jax.tree_util.tree_leaves_with_path(params):
    if not is_finite(array):
      name = '/'.join(key.key for key in path)
      raise UserError(f'the parameter {name} of the model has numbers that are not finite (NaN or '
                      'infinity); its training diverged')
  if config.bits in ('int4', 'mixed'):
    for name, kernel in block_kernels(params[BLOCKS]).items():
      try:
        check_largest(kernel)
      except UserError as error:
        raise UserError(f'CompressionConfig.bits: the matrices {name}: {error}') from error


def check_calibration(values: Iterable[Any], what: str) -> None:
  """Checks what a model makes of the calibration texts.

  Args:
    values: numbers and arrays.
    what: the part of the model that makes them, such as 'layer 3'.

  Raises:
    UserError: a number is not finite.
  """
  if not all(map(is_finite, values)):
    raise UserError(f'{what} makes numbers that are not finite (NaN or infinity) of the '
                    'calibration texts, so that nothing can be chosen by them: weights are too '
                    'large; did the training of the model diverge?')
