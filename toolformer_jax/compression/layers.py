"""Removes whole layers."""

from collections.abc import Sequence

import jax
import numpy as np

from toolformer_jax.compression.calibration import walk
from toolformer_jax.errors import UserError
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
    UserError: there is no such layer, or layers would become local that are global, or global that
      are local.
  """
  c = model.config
  if not kept or max(kept) >= c.layers:
    raise UserError(f'the layers {list(kept)} cannot be kept: the model has the layers 0 to '
                    f'{c.layers - 1}')
  if c.sliding_window and any((i + 1) % c.global_every == 0 for i in range(c.layers)):
    moved = [i for place, i in enumerate(kept)
             if (i + 1) % c.global_every and not (place + 1) % c.global_every
             or not (i + 1) % c.global_every and (place + 1) % c.global_every]
    if moved:
      raise UserError(f'layer {moved[0]} cannot stay what it is, local or global, without the '
                      'layers before it; remove whole periods of '
                      f'{c.global_every} layers')
  params = dict(model.variables['params'])
  params[BLOCKS] = jax.tree.map(lambda x: np.asarray(x)[list(kept)], params[BLOCKS])
  return LanguageModel.from_variables(
      c.replace(layers=len(kept)), {'params': params}, model.tokenizer, model.mesh)
