"""The language-model loss of packed rows, computed without ever holding all logits."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from toolformer_jax import sharding
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder, apply_lm_head, lm_head_params
from toolformer_jax.models.ops import target_logits
from toolformer_jax.training.packing import PackedRows


class LossSums(NamedTuple):
  """Sums over the targets of some rows, each times its weight; float32 scalars.

  Not quotients: over several batches the mean is a quotient of sums.

  Attributes:
    minimised: what training minimises, the only one with a gradient: cross-entropies, and the
      weighted z-loss of PaLM (Chowdhery et al. 2022), the squares of the log-partition functions.
    nll: of the cross-entropies in nats.
    weight: of the weights alone.
  """

  minimised: jax.Array
  nll: jax.Array
  weight: jax.Array


def next_token_loss(
    decoder: Decoder, variables: dict[str, Any], rows: PackedRows, *,
    loss_tokens: int = 1024, z_loss: float = 0.0, dropout_key: jax.Array | None = None,
) -> LossSums:
  """Returns the sums that the loss of `rows` is made of.

  Logits are most of the memory of a small model. They are there for one stretch of the rows at a
  time, and only once: their gradients are computed on the way forward.

  Args:
    decoder, variables: the model.
    rows: what to predict.
    loss_tokens: tokens whose logits a device holds at a time.
    z_loss: weight of the z-loss in what is minimised.
    dropout_key: switches the decoder's dropout on.
  """
  hidden_RTD, _ = decoder.apply(
      variables, rows.tokens_RT, positions_BT=rows.positions_RT, segments_BT=rows.segments_RT,
      return_hidden=True, rngs=None if dropout_key is None else {'dropout': dropout_key})
  sums_of = functools.partial(_stretch_sums, decoder.config, z_loss)
  stretches = _stretches(rows.tokens_RT.shape, loss_tokens)
  head = lm_head_params(decoder.config, variables['params'])
  sums = _sums(sums_of, stretches, head, hidden_RTD, rows.targets_RT, rows.weights_RT)
  return jax.lax.stop_gradient(sums)._replace(minimised=sums.minimised)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sums(sums_of, stretches, head, hidden_RTD, targets_RT, weights_RT) -> LossSums:
  """Returns the sums that `sums_of` gives of every stretch, added up."""
  def add(total, stretch):
    return jax.tree.map(jnp.add, total, sums_of(head, *stretch)), None
  pieces = [_cut(x, stretches) for x in (hidden_RTD, targets_RT, weights_RT)]
  return jax.lax.scan(add, LossSums(*jnp.zeros(3, jnp.float32)), pieces)[0]


def _sums_forward(sums_of, stretches, head, hidden_RTD, targets_RT, weights_RT):
  """Also returns the gradients of what is minimised."""
  # The head may be frozen; the hidden states hang on whatever is trained.
  trained = (0, 1) if any(leaf.perturbed for leaf in jax.tree.leaves(head)) else (1,)
  head, *rows = jax.tree.map(lambda leaf: leaf.value, (head, hidden_RTD, targets_RT, weights_RT))
  def minimised(head, *stretch):
    sums = sums_of(head, *stretch)
    return sums.minimised, sums
  def add(totals, stretch):
    (*to_head, to_hidden_RSD), sums = jax.grad(minimised, trained, has_aux=True)(head, *stretch)
    return jax.tree.map(jnp.add, totals, (sums, to_head)), to_hidden_RSD
  nothing = (LossSums(*jnp.zeros(3, jnp.float32)),
             [jax.tree.map(jnp.zeros_like, head)] if 0 in trained else [])
  (sums, to_head), to_hidden = jax.lax.scan(add, nothing, [_cut(x, stretches) for x in rows])
  return sums, (to_head, _joined(to_hidden, rows[0].shape[1]))


def _sums_backward(sums_of, stretches, gradients, incoming):
  to_head, to_hidden_RTD = jax.tree.map(
      lambda gradient: (incoming.minimised * gradient).astype(gradient.dtype), gradients)
  return (to_head[0] if to_head else None), to_hidden_RTD, None, None


_sums.defvjp(_sums_forward, _sums_backward, symbolic_zeros=True)


def _stretches(shape: tuple[int, int], loss_tokens: int) -> int:
  """Returns in how many stretches along T rows [R, T] are computed.

  All rows are in each of them, so that all devices have work.
  """
  R, T = shape
  return -(-T // max(1, min(T, loss_tokens // sharding.rows_per_device(R))))


def _cut(x_RT: jax.Array, stretches: int) -> jax.Array:
  """Returns stretches of [R, T, ...] one after the other, filled with zeros, [S, R, T / S, ...]."""
  R, T = x_RT.shape[:2]
  size = -(-T // stretches)
  filled = jnp.pad(x_RT, [(0, 0), (0, size * stretches - T)] + [(0, 0)] * (x_RT.ndim - 2))
  return filled.reshape(R, stretches, size, *x_RT.shape[2:]).swapaxes(0, 1)


def _joined(x_SRT: jax.Array, tokens: int) -> jax.Array:
  """Returns what `_cut` cut, [R, T, ...]."""
  S, R, size = x_SRT.shape[:3]
  return x_SRT.swapaxes(0, 1).reshape(R, S * size, *x_SRT.shape[3:])[:, :tokens]


def _stretch_sums(config: DecoderConfig, z_loss: float, head: Any, hidden_RTD: jax.Array,
                  targets_RT: jax.Array, weights_RT: jax.Array) -> LossSums:
  logits_RTV = apply_lm_head(config, head, hidden_RTD).astype(jnp.float32)
  log_z_RT = jax.nn.logsumexp(logits_RTV, -1)
  nll_RT = log_z_RT - target_logits(logits_RTV, targets_RT)
  nll = (nll_RT * weights_RT).sum()
  return LossSums(nll + z_loss * (log_z_RT**2 * weights_RT).sum(), nll, weights_RT.sum())
