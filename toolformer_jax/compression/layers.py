"""Removes whole layers."""

from collections.abc import Sequence

import jax
import numpy as np

from toolformer_jax.compression.calibration import walk
from toolformer_jax.compression.checks import check_kept_layers
from toolformer_jax.models.decoder import BLOCKS
from toolformer_jax.models.language_model import LanguageModel


def block_influences(model: LanguageModel, rows_RT: np.ndarray) -> list[float]:
  """Returns the block influence of each layer on calibration rows (ShortGPT, Men et al. 2024)."""
  influences: list[float] = []
  walk(model, rows_RT, lambda layer, block, found: influences.append(found.influence))
  return influences


def most_influential(influences: Sequence[float], layers: int) -> tuple[int, ...]:
  """Returns the numbers of the `layers` layers of the largest influence, in ascending order."""
  return tuple(sorted(np.argsort(-np.asarray(influences), kind='stable')[:layers].tolist()))


def keep_layers(model: LanguageModel, kept: Sequence[int]) -> LanguageModel:
  """Returns the model that has only some of the layers.

  Args:
    model: the model, without adapters.
    kept: numbers of the layers that are kept, from 0 on, in ascending order.

  Raises:
    UserError: these layers cannot be kept, see `check_kept_layers`.
  """
  c = model.config
  check_kept_layers(kept, c)
  params = dict(model.variables['params'])
  params[BLOCKS] = jax.tree.map(lambda x: np.asarray(x)[list(kept)], params[BLOCKS])
  return LanguageModel.from_variables(
      c.replace(layers=len(kept)), {'params': params}, model.tokenizer, model.mesh)
