"""The language-model loss of packed rows, computed without ever holding all logits."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from toolformer_jax import sharding
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder, project, target_logits
from toolformer_jax.training.packing import PackedRows


class LossSums(NamedTuple):
  """Sums over the targets of some rows, each times its weight; float32 scalars.

  Not quotients: over several batches the mean is a quotient of sums.

  Attributes:
    nll: of the cross-entropies in nats.
    weight: of the weights alone.
    z: of the squared log-partition functions (the z-loss of PaLM, Chowdhery et al. 2022).
  """

  nll: jax.Array
  weight: jax.Array
  z: jax.Array


def next_token_loss(
    decoder: Decoder, variables: dict[str, Any], rows: PackedRows, *,
    loss_tokens: int = 1024, dropout_key: jax.Array | None = None,
) -> LossSums:
  """Returns the sums that the loss of `rows` is made of.

  Logits are most of the memory of a small model. They are there for one stretch of the rows at a
  time, and computed again in the backward pass.

  Args:
    decoder, variables: the model.
    rows: what to predict.
    loss_tokens: tokens whose logits a device holds at a time.
    dropout_key: switches the decoder's dropout on.
  """
  hidden_RTD, _ = decoder.apply(
      variables, rows.tokens_RT, positions_BT=rows.positions_RT, segments_BT=rows.segments_RT,
      head=False, rngs=None if dropout_key is None else {'dropout': dropout_key})
  sums = functools.partial(_sums, decoder.config, variables['params'])
  stretches = _stretches(rows.tokens_RT.shape, loss_tokens)
  if stretches == 1:
    return sums(hidden_RTD, rows.targets_RT, rows.weights_RT)
  def add(total, stretch):
    return jax.tree.map(jnp.add, total, jax.checkpoint(sums)(*stretch)), None
  pieces = [_cut(x, stretches) for x in (hidden_RTD, rows.targets_RT, rows.weights_RT)]
  return jax.lax.scan(add, LossSums(*jnp.zeros(3, jnp.float32)), pieces)[0]


def _stretches(shape: tuple[int, int], loss_tokens: int) -> int:
  """Returns in how many stretches along T rows [R, T] are computed.

  All rows are in each of them, so that all devices have work.
  """
  R, T = shape
  return -(-T // max(1, min(T, loss_tokens // sharding.rows_of_a_device(R))))


def _cut(x_RT: jax.Array, stretches: int) -> jax.Array:
  """Returns stretches of [R, T, ...] one after the other, filled with zeros, [S, R, T / S, ...]."""
  R, T = x_RT.shape[:2]
  size = -(-T // stretches)
  filled = jnp.pad(x_RT, [(0, 0), (0, size * stretches - T)] + [(0, 0)] * (x_RT.ndim - 2))
  return filled.reshape(R, stretches, size, *x_RT.shape[2:]).swapaxes(0, 1)


def _sums(config: DecoderConfig, params: Any, hidden_RTD: jax.Array, targets_RT: jax.Array,
          weights_RT: jax.Array) -> LossSums:
  logits_RTV = project(config, params, hidden_RTD).astype(jnp.float32)
  log_z_RT = jax.nn.logsumexp(logits_RTV, -1)
  losses_RT = log_z_RT - target_logits(logits_RTV, targets_RT)
  return LossSums((losses_RT * weights_RT).sum(), weights_RT.sum(),
                  (log_z_RT**2 * weights_RT).sum())
