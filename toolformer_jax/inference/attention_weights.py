"""How much each token attends to each other one: for explanations, not for speed."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.models.decoder import BLOCKS, Decoder
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.oom import explain_out_of_memory


def attention_weights(model: LanguageModel, token_ids: Sequence[int]) -> np.ndarray:
  """Returns the attention of each token to each other one, float32 [layers, tokens, tokens].

  It is the mean over the heads; each row adds up to 1. The learned keys of a tuned prefix are not
  among the tokens: the rest adds up to 1 without them.

  Args:
    model: the model.
    token_ids: of one text.

  Raises:
    UserError: there is not enough memory.
  """
  tokens_1T = np.array([token_ids], np.int32)
  with jax.set_mesh(model.mesh), explain_out_of_memory('shorten the text'):
    return np.asarray(_attention_weights(model.decoder, model.variables, tokens_1T))


@functools.partial(jax.jit, static_argnames='decoder')
def _attention_weights(decoder: Decoder, variables: dict[str, Any], tokens_1T: jax.Array
                       ) -> jax.Array:
  """Returns the mean of the heads' attention weights, [L, T, S] with S = T."""
  c = decoder.config
  kept: Any = decoder.apply(variables, tokens_1T, return_hidden=True, mutable='intermediates')[1]
  kept = kept['intermediates'][BLOCKS]['attention']
  (q_L1TNH,), (k_L1SKH,) = kept['queries'], kept['keys']
  L, _, T, N, H = q_L1TNH.shape
  q_LTKGH = q_L1TNH[:, 0].reshape(L, T, c.kv_heads, N // c.kv_heads, H).astype(jnp.float32)
  score_LKGTS = jnp.einsum('ltkgh,lskh->lkgts', q_LTKGH, k_L1SKH[:, 0].astype(jnp.float32))
  distance_TS = jnp.arange(T)[:, None] - jnp.arange(T)
  seen_LTS = jnp.broadcast_to(distance_TS >= 0, (L, T, T))
  if c.sliding_window:
    is_global_L = jnp.arange(1, L + 1) % c.global_every == 0
    seen_LTS &= is_global_L[:, None, None] | (distance_TS < c.sliding_window)
  score_LKGTS = jnp.where(seen_LTS[:, None, None], score_LKGTS * H**-0.5, -jnp.inf)
  return jax.nn.softmax(score_LKGTS, -1).mean((1, 2))
