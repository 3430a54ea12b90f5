"""Log-probabilities of the same few continuations after many prompts, such as labels.

A prompt is computed once, and all continuations read its keys and values. `scoring.score` gives the
same numbers, but computes the prompt again with every continuation.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.inference.batching import count_bucket, length_bucket
from toolformer_jax.models.decoder import Decoder, apply_with_cache
from toolformer_jax.models.kv_cache import KVCache, Prefix
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.models.ops import target_log_softmax
from toolformer_jax.runtime.oom import explain_out_of_memory


def score_continuations(model: LanguageModel, prompts: Sequence[Sequence[int]],
                        continuations: Sequence[Sequence[int]], *, scoring_tokens: int = 1024
                        ) -> np.ndarray:
  """Returns log p(continuation | start token, prompt), float64 [prompts, continuations].

  Args:
    model: the model.
    prompts: token ids; at least one of each together with the tokenizer's start token.
    continuations: token ids; at least one of each.
    scoring_tokens: number of tokens of a batch whose logits are in memory.

  Raises:
    UserError: there is not enough memory.
  """
  start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
  ids = [[*start, *prompt] for prompt in prompts]
  L, T = len(continuations), max(map(len, continuations))
  P = max(1, scoring_tokens // (L * T))
  # Prompts of similar lengths are computed together.
  order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
  scores = np.zeros((len(ids), L))
  with jax.set_mesh(model.mesh), explain_out_of_memory('shorten the prompts'):
    for first in range(0, len(order), P):
      members = order[first:first + P]
      scores[members] = _score_batch(model, [ids[i] for i in members], continuations,
                                     count_bucket(len(members)))
  return scores


def _score_batch(model: LanguageModel, prompts: Sequence[Sequence[int]],
                 continuations: Sequence[Sequence[int]], rows: int) -> np.ndarray:
  """Returns the scores of a few prompts, which are padded to `rows` rows."""
  L, T = len(continuations), max(map(len, continuations))
  prompts_PS = np.zeros((rows, length_bucket(max(map(len, prompts)) - 1)), np.int32)
  lengths_P, last_P = np.zeros((2, rows), np.int32)
  for p, prompt in enumerate(prompts):
    prompts_PS[p, :len(prompt) - 1] = prompt[:-1]
    lengths_P[p], last_P[p] = len(prompt) - 1, prompt[-1]
  targets_LT, counts_LT = np.zeros((L, T), np.int32), np.zeros((L, T), np.float64)
  for i, continuation in enumerate(continuations):
    targets_LT[i, :len(continuation)], counts_LT[i, :len(continuation)] = continuation, 1.0
  logprobs_PLT = _target_logprobs(
      model.decoder, model.variables, model.put_batch(prompts_PS), lengths_P, last_P, targets_LT)
  return (np.asarray(logprobs_PLT, np.float64) * counts_LT).sum(-1)[:len(prompts)]


@functools.partial(jax.jit, static_argnames='decoder')
def _target_logprobs(
    decoder: Decoder, variables: dict[str, Any], prompts_PS: jax.Array, lengths_P: jax.Array,
    last_P: jax.Array, targets_LT: jax.Array,
) -> jax.Array:
  """Returns log p of each token of L continuations after P prompts, [P, L, T], float32.

  Args:
    decoder, variables: the model.
    prompts_PS: ids of the prompts without their last tokens, padded; int32.
    lengths_P: number of these; int32.
    last_P: the last token of each prompt.
    targets_LT: ids of the continuations, padded; int32.
  """
  P, S = prompts_PS.shape
  L, T = targets_LT.shape
  _, cache = apply_with_cache(
      decoder, variables, prompts_PS, cache=KVCache.empty(decoder.config, P, S),
      logits_at_BM=jnp.zeros((P, 1), jnp.int32))
  # A row has the last token of its prompt, and all of its continuation but the last token.
  before_LT = jnp.broadcast_to(targets_LT[:, :-1], (P, L, T - 1)).reshape(P * L, T - 1)
  inputs_BT = jnp.concatenate([jnp.repeat(last_P, L)[:, None], before_LT], 1)
  logits_BTV, _ = decoder.apply(
      variables, inputs_BT, prefixes=[Prefix.of(cache, jnp.repeat(lengths_P, L))])
  targets_BT = jnp.broadcast_to(targets_LT, (P, L, T)).reshape(P * L, T)
  return target_log_softmax(logits_BTV, targets_BT).reshape(P, L, T)
