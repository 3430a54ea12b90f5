"""The decoding program of the engine: a few tokens of every row per call."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.inference.token_sampling import sample
from toolformer_jax.inference.top_logprobs import TopLogprobs, no_logprobs, score_tokens
from toolformer_jax.models.decoder import Decoder, apply_with_cache
from toolformer_jax.models.kv_cache import KVCache

STEPS = 4  # tokens decoded per call of the program

# The cache; and of each row the last token, whether a call may start, the number of tokens, and how
# many more there must be before the end.
_Carry = tuple[KVCache, jax.Array, jax.Array, jax.Array, jax.Array]


class DecodeRows(NamedTuple):
  """The inputs of decoding steps for B rows; rows without work have zeros.

  Attributes:
    pending_BA: ids that are not in the cache yet, A = STEPS + 1 of them; int32.
    num_pending_B: number of them after the first that are known, and not decoded; int32.
    may_call_B: whether a call may start; bool.
    forbid_call_B: whether the start token of a call is never sampled as a plain token; bool.
    top_k_api_B: a call starts where its start token is among this many likeliest tokens; int32.
    min_tokens_left_B: number of tokens before the end of the text may be sampled; int32.
    num_tokens_B: number of tokens of the continuation that are cached or read now; int32.
    seed_B: of the samples; uint32.
    temperature_B: 0 for greedy decoding; float32.
    top_p_B: probability of the nucleus; float32.
    adapter_ids_B: number of the row's adapter, where the model has a stack of them; int32.
    wants_logprobs_B: whether log-probabilities of the row's tokens are wanted; bool.
  """

  pending_BA: jax.Array
  num_pending_B: jax.Array
  may_call_B: jax.Array
  forbid_call_B: jax.Array
  top_k_api_B: jax.Array
  min_tokens_left_B: jax.Array
  num_tokens_B: jax.Array
  seed_B: jax.Array
  temperature_B: jax.Array
  top_p_B: jax.Array
  adapter_ids_B: jax.Array
  wants_logprobs_B: jax.Array


class SpecialTokens(NamedTuple):
  """Ids with a meaning for decoding.

  Attributes:
    api_id: starts a call; int32 scalar.
    end_ids_E: end a text; int32.
  """

  api_id: jax.Array | np.int32
  end_ids_E: jax.Array | np.ndarray


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def decode_steps(
    decoder: Decoder, variables: dict[str, Any], cache: KVCache, rows: DecodeRows,
    special: SpecialTokens,
) -> tuple[jax.Array, TopLogprobs, KVCache]:
  """Returns the next `STEPS` tokens of every row, [B, STEPS] int32, and the cache with them.

  Between them it returns the log-probabilities of these tokens, [B, STEPS]: of the model as it is,
  without temperature and whatever may be sampled. They are zeros where no row wants any.

  Args:
    decoder, variables: the model.
    cache: of the rows; donated. Slots after a row's length are not read.
    rows: inputs of the steps. Pending tokens are returned as they are, and at most one call starts
      per row.
    special: ids with a meaning.
  """
  def step(carry: _Carry, xs: tuple[jax.Array, jax.Array]
           ) -> tuple[_Carry, tuple[jax.Array, TopLogprobs]]:
    """Returns the state after one more token of every row is read, and the token after it, [B]."""
    cache, last_B, may_call_B, num_tokens_B, min_tokens_left_B = carry
    n, pending_B = xs
    # Else XLA converts and copies embeddings of bfloat16 ahead of the loop, whole.
    read, last_B = jax.lax.optimization_barrier((variables, last_B))
    decodes_B = n >= rows.num_pending_B
    logits_B1V, cache = apply_with_cache(
        decoder, read, last_B[:, None], cache=cache,
        adapter_ids_BT=rows.adapter_ids_B[:, None])
    logits_BV = logits_B1V[:, 0].astype(jnp.float32)
    starts_call_B = may_call_B & decodes_B & _api_is_likely(logits_BV, rows, special)
    plain_BV = _plain_logits(logits_BV, rows, special, min_tokens_left_B)
    sampled_B = sample(plain_BV, rows.seed_B[:, None], num_tokens_B, rows.temperature_B,
                       rows.top_p_B)[:, 0]
    next_B = jnp.where(starts_call_B, special.api_id, sampled_B)
    next_B = jnp.where(decodes_B, next_B, pending_B).astype(jnp.int32)
    logprobs = jax.lax.cond(rows.wants_logprobs_B.any(), score_tokens, no_logprobs, logits_BV,
                            next_B)
    # Inside a call the end token only removes the call.
    min_tokens_left_B = jnp.where(starts_call_B, 0, min_tokens_left_B - decodes_B)
    carry = cache, next_B, may_call_B & ~starts_call_B, num_tokens_B + 1, min_tokens_left_B
    return carry, (next_B, logprobs)
  carry = (cache, rows.pending_BA[:, 0], rows.may_call_B, rows.num_tokens_B,
           rows.min_tokens_left_B)
  (cache, *_), by_step = jax.lax.scan(step, carry, (jnp.arange(STEPS), rows.pending_BA[:, 1:].T))
  tokens_BN, logprobs = jax.tree.map(lambda x_NB: jnp.swapaxes(x_NB, 0, 1), by_step)
  return tokens_BN, logprobs, cache


def _api_is_likely(logits_BV: jax.Array, rows: DecodeRows, special: SpecialTokens) -> jax.Array:
  """Returns whether the start of a call is among the likeliest tokens, [B] (section 4.2)."""
  rank_B = (logits_BV > logits_BV[:, special.api_id, None]).sum(-1)
  return rank_B < rows.top_k_api_B


def _plain_logits(logits_BV: jax.Array, rows: DecodeRows, special: SpecialTokens,
                  min_tokens_left_B: jax.Array) -> jax.Array:
  """Returns the logits [B, V], with -inf for the tokens that must not be sampled."""
  api_B = jnp.where(rows.forbid_call_B, -jnp.inf, logits_BV[:, special.api_id])
  end_BE = jnp.where(min_tokens_left_B[:, None] > 0, -jnp.inf, logits_BV[:, special.end_ids_E])
  return logits_BV.at[:, special.api_id].set(api_B).at[:, special.end_ids_E].set(end_BE)
