"""The loss of a model on calibration texts, and its gradients."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.models.decoder import BLOCKS, Decoder
from toolformer_jax.models.kernels import Params, with_kernels
from toolformer_jax.models.language_model import LanguageModel


def first_order_changes(model: LanguageModel, rows_RT: np.ndarray, paths: Sequence[str]
                        ) -> Iterator[dict[str, np.ndarray]]:
  """Yields for each row how its loss falls if a weight becomes zero, to first order.

  That is the weight times the gradient of the row's mean loss (Molchanov et al. 2019).

  Args:
    model: the model, without adapters.
    rows_RT: tokens, from `calibration_rows`.
    paths: the matrix products whose weights are asked for, such as 'mlp/down'.

  Yields:
    the changes for each weight, [L, *kernel] by path.
  """
  with jax.set_mesh(model.mesh):
    for tokens_T in rows_RT:
      changes = _changes(model.decoder, model.variables['params'], jnp.asarray(tokens_T[None]),
                         tuple(paths))
      yield jax.tree.map(np.asarray, changes)


def calibration_loss(model: LanguageModel, rows_RT: np.ndarray) -> float:
  """Returns the mean loss of all tokens but the first of each row."""
  with jax.set_mesh(model.mesh):
    losses_R = [_jitted_loss(model.decoder, model.variables['params'], jnp.asarray(tokens_T[None]))
                for tokens_T in rows_RT]
  return float(np.mean(jax.device_get(losses_R), dtype=np.float64))


@functools.partial(jax.jit, static_argnames=('decoder', 'paths'))
def _changes(decoder: Decoder, params: Params, tokens_BT: jax.Array, paths: tuple[str, ...]
             ) -> dict[str, jax.Array]:
  """Returns the chosen kernels times their gradients."""
  blocks = params[BLOCKS]
  kernels = {}
  for path in paths:
    part, name = path.split('/')
    kernels[path] = blocks[part][name]['kernel']
  def loss(kernels: dict[str, jax.Array]) -> jax.Array:
    return _loss(decoder, params | {BLOCKS: with_kernels(blocks, kernels)}, tokens_BT)
  gradients = jax.grad(loss)(kernels)
  return {path: kernels[path] * gradients[path] for path in paths}


def _loss(decoder: Decoder, params: Params, tokens_BT: jax.Array) -> jax.Array:
  """Returns the mean loss of all tokens but the first of each row."""
  outputs: Any = decoder.apply({'params': params}, tokens_BT)
  logprobs_BTV = jax.nn.log_softmax(outputs[0][:, :-1].astype(jnp.float32))
  return -jnp.take_along_axis(logprobs_BTV, tokens_BT[:, 1:, None], -1).mean()


_jitted_loss = jax.jit(_loss, static_argnames='decoder')
