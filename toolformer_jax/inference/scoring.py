"""Log-probabilities of chosen tokens of many texts, each after a prefix of its own.

A text's score never depends on what else is scored (law 3): sequences are packed into rows, and
tokens see only their own sequence. Work is saved without changing a number: requests for the same
sequence are computed once, a sequence ends before its last scored token, nothing is padded but the
ends of rows, and only scored tokens are projected to the vocabulary.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.inference.batching import count_bucket, first_fit
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.models.ops import target_logits
from toolformer_jax.runtime.oom import explain_out_of_memory

_ROW_TOKENS = 256  # shortest row; longer sequences get rows of the next power of two


@dataclass(frozen=True)
class ScoreRequest:
  """Asks for log p(text[j] | start token, prefix, text[:j]) for each j of `targets`."""

  prefix: tuple[int, ...]
  text: tuple[int, ...]
  targets: tuple[int, ...]


@dataclass(frozen=True)
class _Sequence:
  """One sequence to compute: the logits at index at[i] predict the id targets[i]."""

  tokens: list[int]
  at: list[int]
  targets: list[int]


def score(model: LanguageModel, requests: Sequence[ScoreRequest], *,
          scoring_tokens: int = 1024) -> list[np.ndarray]:
  """Returns for each request the natural-log probabilities of its targets, float32.

  Every sequence begins with the tokenizer's start token where it has one. Without one, a text's
  very first token has no probability: NaN.

  Args:
    model: the model.
    requests: what to score.
    scoring_tokens: tokens of one batch. Results do not depend on it but for rounding: more is
      faster on an accelerator, less needs less memory.

  Raises:
    UserError: there is not enough memory.
  """
  groups: dict[tuple, set[int]] = {}
  for request in requests:
    groups.setdefault((request.prefix, request.text), set()).update(request.targets)
  sequences = [_sequence(model, *key, sorted(targets)) for key, targets in groups.items()]
  with explain_out_of_memory('lower AnnotationConfig.scoring_tokens, or shorten the texts'):
    logprobs = _score_sequences(model, sequences, scoring_tokens)
  known = {key: dict(zip(sorted(targets), values, strict=True))
           for (key, targets), values in zip(groups.items(), logprobs, strict=True)}
  return [np.array([known[request.prefix, request.text][j] for j in request.targets], np.float32)
          for request in requests]


def _sequence(model, prefix, text, targets) -> _Sequence:
  start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
  before = len(start) + len(prefix)
  tokens = [*start, *prefix, *text[:max(targets, default=0)]]
  return _Sequence(tokens, [before + j - 1 for j in targets], [text[j] for j in targets])


def _score_sequences(model: LanguageModel, sequences: list[_Sequence],
                     scoring_tokens: int) -> list[np.ndarray]:
  """Packs the sequences into rows by length, and scores the rows in batches.

  The host packs a batch while the device computes the one before. Two batches are never on the
  device at the same time: they would share its memory.
  """
  scores = [np.full(len(s.at), np.nan, np.float32) for s in sequences]
  running, places = None, []
  ways = sharding.batch_shards(model.mesh)
  for rows, row_tokens in _batches(sequences, scoring_tokens, ways):
    arrays, next_places = _pack_rows(sequences, rows, row_tokens)
    _read(running, places, scores)
    with jax.set_mesh(model.mesh):
      running = target_logprobs(model.decoder, model.variables, *map(model.put_batch, arrays))
    places = next_places
  _read(running, places, scores)
  return scores


def _batches(sequences: list[_Sequence], batch_tokens: int, ways: int
             ) -> Iterator[tuple[list, int]]:
  """Yields the rows of each batch, as lists of indices of sequences, and their length.

  Where there are enough rows, every batch has one for each of `ways` devices.
  """
  by_length: dict[int, list[int]] = {}
  for i, sequence in enumerate(sequences):
    if sequence.at and sequence.tokens:
      by_length.setdefault(count_bucket(len(sequence.tokens), _ROW_TOKENS), []).append(i)
  for row_tokens, members in sorted(by_length.items()):
    rows = first_fit([len(sequences[i].tokens) for i in members], row_tokens)
    rows = [[members[i] for i in row] for row in rows]
    # A batch is padded to the row with the most scored tokens: rows with as many stand together.
    rows.sort(key=lambda row: -_places(sequences, row))
    batch_rows = max(ways, batch_tokens // row_tokens)
    for first in range(0, len(rows), batch_rows):
      yield rows[first:first + batch_rows], row_tokens


def _places(sequences: list[_Sequence], row: list[int]) -> int:
  """Returns how many tokens of a row are scored."""
  return sum(len(sequences[i].at) for i in row)


def _pack_rows(sequences, rows, row_tokens) -> tuple[list[np.ndarray], list[tuple]]:
  """Fills the arrays of one batch.

  Returns:
    what `target_logprobs` takes, and (sequence, index in it, row, column) of each score.
  """
  B = count_bucket(len(rows))
  M = count_bucket(max(_places(sequences, row) for row in rows), 16)
  tokens_BT, positions_BT, segments_BT = np.zeros((3, B, row_tokens), np.int32)
  at_BM, targets_BM = np.zeros((2, B, M), np.int32)
  places = []
  for r, row in enumerate(rows):
    offset, column = 0, 0
    for segment, i in enumerate(row, 1):
      size = len(sequences[i].tokens)
      tokens_BT[r, offset:offset + size] = sequences[i].tokens
      positions_BT[r, offset:offset + size] = np.arange(size)
      segments_BT[r, offset:offset + size] = segment
      for n, (at, target) in enumerate(zip(sequences[i].at, sequences[i].targets, strict=True)):
        if at >= 0:  # else no token comes before it
          at_BM[r, column], targets_BM[r, column] = offset + at, target
          places.append((i, n, r, column))
          column += 1
      offset += size
  return [tokens_BT, positions_BT, segments_BT, at_BM, targets_BM], places


def _read(logprobs_BM: jax.Array | None, places: list[tuple], scores: list[np.ndarray]) -> None:
  """Waits for the scores of a batch and puts them where they belong."""
  logprobs_BM = np.asarray(logprobs_BM)
  for i, n, r, column in places:
    scores[i][n] = logprobs_BM[r, column]


@functools.partial(jax.jit, static_argnames='decoder')
def target_logprobs(
    decoder: Decoder, variables: dict[str, Any], tokens_BT: jax.Array, positions_BT: jax.Array,
    segments_BT: jax.Array, at_BM: jax.Array, targets_BM: jax.Array,
) -> jax.Array:
  """Returns log p(targets_BM | tokens of the same segment up to at_BM), [B, M], float32."""
  logits_BMV, _ = decoder.apply(
      variables, tokens_BT, positions_BT=positions_BT, segments_BT=segments_BT, logits_at_BM=at_BM)
  logits_BMV = logits_BMV.astype(jnp.float32)
  return target_logits(logits_BMV, targets_BM) - jax.nn.logsumexp(logits_BMV, -1)


def score_texts(model: LanguageModel, texts: Sequence[str], *, scoring_tokens: int = 1024
                ) -> list[dict[str, Any]]:
  """Returns {'token_ids': ..., 'logprobs': ...} of each text; None for a text's first token.

  Raises:
    UserError: a text is longer than the model allows, or there is not enough memory.
  """
  tokenizer = copy.copy(model.tokenizer)
  tokenizer.start_id = None  # texts are scored as they are, without a start token
  model = dataclasses.replace(model, tokenizer=tokenizer)
  ids = [tokenizer.encode(text) for text in texts]
  for number, tokens in enumerate(ids):
    if len(tokens) > model.config.max_positions:
      raise UserError(f'text {number} has {len(tokens)} tokens, and the model only '
                      f'{model.config.max_positions} positions; split it')
  requests = [ScoreRequest((), tuple(tokens), tuple(range(len(tokens)))) for tokens in ids]
  return [{'token_ids': tokens,
           'logprobs': [None if math.isnan(value) else value for value in values.tolist()]}
          for tokens, values in zip(ids, score(model, requests, scoring_tokens=scoring_tokens),
                                    strict=True)]
