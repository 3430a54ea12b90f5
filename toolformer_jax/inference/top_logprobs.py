"""The log-probability of every token of a text, and the likeliest tokens in its place."""

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.inference.batching import count_bucket
from toolformer_jax.inference.token_logprobs import TokenLogprobs
from toolformer_jax.models.decoder import Decoder, apply_lm_head, lm_head_params
from toolformer_jax.models.language_model import LanguageModel

log = logging.getLogger(__name__)

_TOP = 20
_BLOCK = 256  # tokens whose logits are in memory at the same time


class TopLogprobs(NamedTuple):
  """The log-probabilities of tokens, and of the K likeliest ones in the place of each.

  Attributes:
    token: of the tokens, `[...]` float32.
    top: of the likeliest tokens, best first, `[..., K]` float32.
    ids: these tokens, `[..., K]` int32.
  """

  token: jax.Array | np.ndarray
  top: jax.Array | np.ndarray
  ids: jax.Array | np.ndarray

  def row(self, i: int) -> 'TopLogprobs':
    """Returns those of one row."""
    return TopLogprobs(*(x[i] for x in self))

  def of(self, tokens: Sequence[int]) -> list[TokenLogprobs]:
    """Returns those of a text, whose arrays are on the host, with its tokens."""
    rows = zip(tokens, self.token.tolist(), self.top.tolist(), self.ids.tolist(), strict=False)
    return [TokenLogprobs(token, logprob, list(zip(ids, top, strict=True)))
            for token, logprob, top, ids in rows]


def score_tokens(logits_MV: jax.Array, tokens_M: jax.Array) -> TopLogprobs:
  """Returns the log-probabilities of `tokens_M`, by float32 logits for the place of each."""
  logprobs_MV = jax.nn.log_softmax(logits_MV)
  top_MK, ids_MK = jax.lax.top_k(logprobs_MV, min(_TOP, logits_MV.shape[-1]))
  return TopLogprobs(jnp.take_along_axis(logprobs_MV, tokens_M[:, None], 1)[:, 0], top_MK, ids_MK)


def no_logprobs(logits_MV: jax.Array, tokens_M: jax.Array) -> TopLogprobs:
  """Returns zeros in the shapes of `score_tokens`."""
  shapes = jax.eval_shape(score_tokens, logits_MV, tokens_M)
  return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)


def top_logprobs(model: LanguageModel, tokens: Sequence[int]) -> list[TokenLogprobs]:
  """Returns each of `tokens` with its natural log-probability after the ones before it."""
  if not tokens:
    return []
  T = count_bucket(len(tokens), _BLOCK)
  padded_1T = np.zeros((1, T), np.int32)
  padded_1T[0, :len(tokens)] = tokens
  with jax.set_mesh(model.mesh):
    scores = jax.device_get(_score(model.decoder, model.variables, padded_1T))
  return [TokenLogprobs(tokens[0], None, []), *scores.of(tokens[1:])]


def warm_up(model: LanguageModel, max_tokens: int) -> None:
  """Compiles the programs for texts of up to `max_tokens` tokens."""
  size = _BLOCK
  while size < 2 * max_tokens:
    log.info('warm-up: log-probabilities of %d tokens', size)
    top_logprobs(model, [0] * size)
    size *= 2


@functools.partial(jax.jit, static_argnames='decoder')
def _score(decoder: Decoder, variables: dict[str, Any], tokens_1T: jax.Array
           ) -> TopLogprobs:
  """Returns the log-probabilities of the token after each, `[T]`, and of the likeliest ones."""
  x_1TD, _ = decoder.apply(variables, tokens_1T, return_hidden=True)
  head = lm_head_params(decoder.config, variables['params'])
  def block(xs: tuple[jax.Array, jax.Array]) -> TopLogprobs:
    x_MD, next_M = xs
    return score_tokens(
        apply_lm_head(decoder.config, head, x_MD[None])[0].astype(jnp.float32), next_M)
  next_T = jnp.roll(tokens_1T[0], -1)
  blocks = x_1TD[0].reshape(-1, _BLOCK, x_1TD.shape[-1]), next_T.reshape(-1, _BLOCK)
  found = jax.lax.map(block, blocks)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
