"""The loss of texts that are not trained on."""

import functools

import jax
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.training.data import put_rows
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.packing import PackedRows


def mean_loss(model: LanguageModel, rows: PackedRows, batch_rows: int, loss_tokens: int) -> float:
  """Returns the mean loss of `rows` in nats per token, `batch_rows` at a time."""
  total = weight = 0.0
  filled = rows.pad(-(-len(rows) // batch_rows) * batch_rows)
  for numbers in np.split(np.arange(len(filled)), len(filled) // batch_rows):
    with sharding.on_mesh(model.mesh):
      batch = put_rows(filled, numbers, model.mesh)
      sums = _loss_sums(model.decoder, model.variables, batch, loss_tokens=loss_tokens)
    total, weight = total + float(sums.nll), weight + float(sums.weight)
  return total / weight


_loss_sums = functools.partial(jax.jit, static_argnums=0, static_argnames='loss_tokens')(
    next_token_loss)
