"""The log-probability of every token of a text, and the likeliest tokens in its place."""

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.inference.batching import count_bucket
from toolformer_jax.models.decoder import Decoder, apply_lm_head, lm_head_params
from toolformer_jax.models.language_model import LanguageModel

log = logging.getLogger(__name__)

_TOP = 20
_BLOCK = 256  # tokens whose logits are in memory at the same time


class TokenLogprobs(NamedTuple):
  """A token, its log-probability (None for the first of a text), and the likeliest tokens in its
  place with theirs, best first."""

  token: int
  logprob: float | None
  top: list[tuple[int, float]]


def top_logprobs(model: LanguageModel, tokens: Sequence[int]) -> list[TokenLogprobs]:
  """Returns each of `tokens` with its natural log-probability after the ones before it."""
  if not tokens:
    return []
  T = count_bucket(len(tokens), _BLOCK)
  padded_1T = np.zeros((1, T), np.int32)
  padded_1T[0, :len(tokens)] = tokens
  with jax.set_mesh(model.mesh):
    scores_T, top_TK, ids_TK = (np.asarray(x).tolist() for x in _score(
        model.decoder, model.variables, padded_1T))
  return [TokenLogprobs(tokens[0], None, [])] + [
      TokenLogprobs(token, scores_T[t], list(zip(ids_TK[t], top_TK[t], strict=True)))
      for t, token in enumerate(tokens[1:])]


def warm_up(model: LanguageModel, max_tokens: int) -> None:
  """Compiles the programs for texts of up to `max_tokens` tokens."""
  size = _BLOCK
  while size < 2 * max_tokens:
    log.info('warm-up: log-probabilities of %d tokens', size)
    top_logprobs(model, [0] * size)
    size *= 2


@functools.partial(jax.jit, static_argnames='decoder')
def _score(decoder: Decoder, variables: dict[str, Any], tokens_1T: jax.Array
           ) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns log p of the token after each [T], and the likeliest tokens: log p and ids [T, K]."""
  x_1TD, _ = decoder.apply(variables, tokens_1T, return_hidden=True)
  head = lm_head_params(decoder.config, variables['params'])
  def block(xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_MD, next_M = xs
    logits_MV = apply_lm_head(decoder.config, head, x_MD[None])[0].astype(jnp.float32)
    logprobs_MV = jax.nn.log_softmax(logits_MV)
    top_MK, ids_MK = jax.lax.top_k(logprobs_MV, min(_TOP, logits_MV.shape[-1]))
    return jnp.take_along_axis(logprobs_MV, next_M[:, None], 1)[:, 0], top_MK, ids_MK
  next_T = jnp.roll(tokens_1T[0], -1)
  blocks = x_1TD[0].reshape(-1, _BLOCK, x_1TD.shape[-1]), next_T.reshape(-1, _BLOCK)
  found = jax.lax.map(block, blocks)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
