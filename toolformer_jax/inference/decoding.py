"""The decoding step of the engine: a few tokens of every row, in one compiled program."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from toolformer_jax.inference.token_sampling import sample
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.kv_cache import KVCache

STEPS = 4  # tokens decoded per call of the program


class DecodeRows(NamedTuple):
  """What B rows decode next; rows without work have zeros.

  Attributes:
    pending_BA: ids that are not in the cache yet, A = STEPS + 1 of them; int32.
    num_pending_B: how many of them, after the first, are known: they are read and not decoded.
    may_call_B: whether a call may start here; bool.
    forbid_call_B: whether the call's start token is forbidden elsewhere; bool.
    top_k_api_B: a call starts where its start token is among this many likeliest tokens.
    min_tokens_left_B: how many tokens must come before the end of the text.
    num_tokens_B: how many tokens of the continuation are in the cache or read now.
    seed_B: of the samples; uint32.
    temperature_B: 0 for greedy; float32.
    top_p_B: probability of the nucleus; float32.
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


class SpecialTokens(NamedTuple):
  """Ids that decoding treats in their own way.

  Attributes:
    api_id: starts a call; int32 scalar.
    end_ids_E: end a text; int32.
  """

  api_id: jax.Array
  end_ids_E: jax.Array


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def decode_steps(
    decoder: Decoder, variables: dict[str, Any], cache: KVCache, rows: DecodeRows,
    special: SpecialTokens,
) -> tuple[jax.Array, KVCache]:
  """Returns `STEPS` tokens of every row, [B, STEPS] int32, and the cache with them.

  Pending tokens are returned as they are. A call starts at most once per row. Only the lengths of
  the donated `cache` say which of its slots are read.
  """
  def step(carry, xs):
    cache, last_B, may_call_B, num_tokens_B, min_tokens_left_B = carry
    n, pending_B = xs
    decodes_B = n >= rows.num_pending_B
    logits_B1V, cache = decoder.apply(variables, last_B[:, None], cache=cache)
    logits_BV = logits_B1V[:, 0].astype(jnp.float32)
    starts_call_B = may_call_B & decodes_B & _api_is_likely(logits_BV, rows, special)
    plain_BV = _plain_logits(logits_BV, rows, special, min_tokens_left_B)
    sampled_B = sample(plain_BV, rows.seed_B[:, None], num_tokens_B, rows.temperature_B,
                       rows.top_p_B)[:, 0]
    next_B = jnp.where(starts_call_B, special.api_id, sampled_B)
    next_B = jnp.where(decodes_B, next_B, pending_B).astype(jnp.int32)
    # Inside a call the end token only takes the call back.
    min_tokens_left_B = jnp.where(starts_call_B, 0, min_tokens_left_B - decodes_B)
    carry = cache, next_B, may_call_B & ~starts_call_B, num_tokens_B + 1, min_tokens_left_B
    return carry, next_B
  carry = (cache, rows.pending_BA[:, 0], rows.may_call_B, rows.num_tokens_B,
           rows.min_tokens_left_B)
  (cache, *_), tokens_NB = jax.lax.scan(step, carry, (jnp.arange(STEPS), rows.pending_BA[:, 1:].T))
  return tokens_NB.T, cache


def _api_is_likely(logits_BV: jax.Array, rows: DecodeRows, special: SpecialTokens) -> jax.Array:
  """Tells whether the start of a call is among the likeliest tokens, [B] (paper, section 4.2)."""
  rank_B = (logits_BV > logits_BV[:, special.api_id, None]).sum(-1)
  return rank_B < rows.top_k_api_B


def _plain_logits(logits_BV: jax.Array, rows: DecodeRows, special: SpecialTokens,
                  min_tokens_left_B: jax.Array) -> jax.Array:
  """Returns the logits [B, V] without the tokens that must not be sampled."""
  api_B = jnp.where(rows.forbid_call_B, -jnp.inf, logits_BV[:, special.api_id])
  end_BE = jnp.where(min_tokens_left_B[:, None] > 0, -jnp.inf, logits_BV[:, special.end_ids_E])
  return logits_BV.at[:, special.api_id].set(api_B).at[:, special.end_ids_E].set(end_BE)
