"""The loss of a model on calibration texts, and its gradients."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.compression.finite import check_calibration
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import BLOCKS, Decoder
from toolformer_jax.models.kernels import Params, with_kernels
from toolformer_jax.models.language_model import LanguageModel

# Of the decoder's configuration, the path of a kernel and its changes, [L, *kernel].
Score = Callable[[DecoderConfig, str, jax.Array], jax.Array]


def sum_of_changes(model: LanguageModel, rows_RT: np.ndarray, paths: Sequence[str],
                   score: Score) -> dict[str, np.ndarray]:
  """Returns how much weights matter to the loss of rows, to first order, summed over the rows.

  The change of a row's mean loss if a weight becomes zero is the weight times its gradient
  (Molchanov et al. 2019). Nothing leaves the devices before the last row.

  Args:
    model: the model, without adapters.
    rows_RT: tokens, from `calibration_rows`.
    paths: the matrix products whose weights are asked for, such as 'mlp/down'.
    score: what is summed of a row's changes, such as their absolute values. It is compiled, and
      kept as long as the process, so that it must hold no weights.

  Returns:
    the sums, by path.

  Raises:
    UserError: they are not finite.
  """
  params, total = model.variables['params'], None
  with jax.set_mesh(model.mesh):
    for tokens_T in rows_RT:
      total = _with_changes(total, model.decoder, params, jnp.asarray(tokens_T[None]),
                            tuple(paths), score)
  sums: dict[str, np.ndarray] = jax.tree.map(np.asarray, total)
  for path, changes in sums.items():
    check_calibration([changes], path)
  return sums


def calibration_loss(model: LanguageModel, rows_RT: np.ndarray) -> float:
  """Returns the mean loss of all tokens but the first of each row.

  Raises:
    UserError: it is not finite.
  """
  with jax.set_mesh(model.mesh):
    losses_R = [_jitted_loss(model.decoder, model.variables['params'], jnp.asarray(tokens_T[None]))
                for tokens_T in rows_RT]
  losses_R = jax.device_get(losses_R)
  check_calibration([losses_R], 'the model')
  return float(np.mean(losses_R, dtype=np.float64))


@functools.partial(jax.jit, static_argnames=('decoder', 'paths', 'score'), donate_argnames='total')
def _with_changes(
    total: dict[str, jax.Array] | None, decoder: Decoder, params: Params, tokens_BT: jax.Array,
    paths: tuple[str, ...], score: Score) -> dict[str, jax.Array]:
  """Returns the sums with those of another row: scores of kernels times their gradients."""
  blocks = params[BLOCKS]
  kernels = {}
  for path in paths:
    part, name = path.split('/')
    kernels[path] = blocks[part][name]['kernel']
  def loss(kernels: dict[str, jax.Array]) -> jax.Array:
    return _loss(decoder, params | {BLOCKS: with_kernels(blocks, kernels)}, tokens_BT)
  gradients = jax.grad(loss)(kernels)
  scores = {path: score(decoder.config, path, kernels[path] * gradients[path]) for path in paths}
  return jax.tree.map(jnp.add, total, scores) if total else scores


def _loss(decoder: Decoder, params: Params, tokens_BT: jax.Array) -> jax.Array:
  """Returns the mean loss of all tokens but the first of each row."""
  outputs: Any = decoder.apply({'params': params}, tokens_BT)
  logprobs_BTV = jax.nn.log_softmax(outputs[0][:, :-1].astype(jnp.float32))
  return -jnp.take_along_axis(logprobs_BTV, tokens_BT[:, 1:, None], -1).mean()


_jitted_loss = jax.jit(_loss, static_argnames='decoder')
