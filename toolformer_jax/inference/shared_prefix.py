"""Prefill of the prefixes that branches share: the few-shot prompt and the documents."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.inference.batching import count_bucket, count_tokens, length_bucket
from toolformer_jax.models.decoder import Decoder, apply_with_cache
from toolformer_jax.models.kv_cache import KVCache, Prefix, new_cache
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.models.ops import target_log_softmax
from toolformer_jax.runtime.oom import explain_out_of_memory

# Documents per call: their logits take more memory than their keys and values.
DOCUMENT_ROWS = 8


@dataclass(frozen=True)
class PrefilledDocuments:
  """Documents whose keys and values are cached.

  Attributes:
    prompt: cache of the shared prompt, one row.
    documents: cache with a row for each document, and a few unused ones.
    logprobs: of each document, log p(token_id | prompt, document[:i]) at each watched index i.
  """

  prompt: KVCache
  documents: KVCache
  logprobs: list[np.ndarray]


def prefill_prompt(model: LanguageModel, prompt: Sequence[int]) -> KVCache:
  """Returns the keys and values of `prompt`, after the start token if the tokenizer has one.

  Raises:
    UserError: there is not enough memory.
  """
  start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
  tokens_1T = np.array([[*start, *prompt]], np.int32)
  with jax.set_mesh(model.mesh), explain_out_of_memory('shorten the prompt'):
    return _prefill_prompt(model.decoder, model.variables, tokens_1T)


def prefill_documents(
    model: LanguageModel, prompt: KVCache, documents: Sequence[Sequence[int]],
    token_id: int, watched: Sequence[range], counts: Counter[str] | None = None,
) -> PrefilledDocuments:
  """Computes documents after the prompt, and how likely `token_id` is at their positions.

  Args:
    model: the model.
    prompt: from `prefill_prompt`.
    documents: token ids of each document.
    token_id: the token to watch for.
    watched: for each document the indices i at which log p(token_id | prompt, document[:i])
      is wanted; all greater than 0.
    counts: gets the numbers of tokens that are needed and computed, see `batching`.

  Raises:
    UserError: there is not enough memory.
  """
  slots, logprobs = length_bucket(max(map(len, documents))), []
  with jax.set_mesh(model.mesh), explain_out_of_memory(
      'shorten the documents (max_text_tokens)'):
    step = max(DOCUMENT_ROWS, sharding.batch_shards(model.mesh))
    rows = min(count_bucket(len(documents)), -(-len(documents) // step) * step)
    cache = new_cache(model.config, rows, slots)
    for first in range(0, len(documents), DOCUMENT_ROWS):
      batch = slice(first, first + DOCUMENT_ROWS)
      tokens_PT, at_PM = _padded(documents[batch], watched[batch])
      count_tokens(counts, sum(map(len, documents[batch])), tokens_PT.size)
      logprobs_PM, cache = prefill_rows(
          model.decoder, model.variables, prompt, cache, first, model.put_batch(tokens_PT),
          model.put_batch(at_PM), token_id)
      logprobs_PM = np.asarray(logprobs_PM)
      logprobs += [logprobs_PM[row, :len(indices)] for row, indices in enumerate(watched[batch])]
  return PrefilledDocuments(prompt, cache, logprobs)


def _padded(documents: Sequence[Sequence[int]], watched: Sequence[range]
            ) -> tuple[np.ndarray, np.ndarray]:
  """Returns the tokens [P, T], and the indices [P, M] after which the token is watched."""
  P = count_bucket(len(documents))
  tokens_PT = np.zeros((P, length_bucket(max(map(len, documents)))), np.int32)
  at_PM = np.zeros((P, length_bucket(max(map(len, watched)))), np.int32)
  for row, (tokens, indices) in enumerate(zip(documents, watched, strict=True)):
    tokens_PT[row, :len(tokens)] = tokens
    at_PM[row, :len(indices)] = np.array(indices) - 1
  return tokens_PT, at_PM


@functools.partial(jax.jit, static_argnames='decoder')
def _prefill_prompt(decoder: Decoder, variables: dict[str, Any], tokens_1T: jax.Array) -> KVCache:
  """Returns a cache of one row with the keys and values of `tokens_1T`."""
  cache = KVCache.empty(decoder.config, 1, tokens_1T.shape[1])
  return apply_with_cache(decoder, variables, tokens_1T, cache=cache,
                          logits_at_BM=jnp.zeros((1, 1), jnp.int32))[1]


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def prefill_rows(
    decoder: Decoder, variables: dict[str, Any], prompt: KVCache, cache: KVCache, first: jax.Array,
    tokens_PT: jax.Array, at_PM: jax.Array, token_id: jax.Array,
) -> tuple[jax.Array, KVCache]:
  """Returns log p(token_id) after some tokens of P documents, [P, M], and the cache with them.

  Args:
    decoder, variables: the model.
    prompt: cache of one row, which the documents follow.
    cache: of all documents; donated.
    first: row of the cache for the first of these documents; the others follow.
    tokens_PT: ids of the documents, padded; int32.
    at_PM: indices into T after which the log-probability is computed; int32.
    token_id: the token.
  """
  P, T = tokens_PT.shape
  limit_P = jnp.broadcast_to(prompt.length_B, (P,))
  logits_PMV, rows = apply_with_cache(
      decoder, variables, tokens_PT, cache=KVCache.empty(decoder.config, P, T),
      prefixes=[Prefix.of(prompt, limit_P)], logits_at_BM=at_PM)
  logprobs_PM = target_log_softmax(logits_PMV, jnp.full_like(at_PM, token_id))
  return logprobs_PM, cache.put(first + jnp.arange(P), rows.grow(cache.slots))
