"""Log-probabilities of chosen tokens of many texts, each after its own prefix.

A text's score never depends on what else is scored (law 3): sequences are packed into rows, and
tokens see only their own sequence. Work is saved without changing a number: requests for the same
sequence are computed once, a sequence ends before its last scored token, nothing is padded but the
ends of rows, and only scored tokens are projected to the vocabulary.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.inference.batching import (
  PackedTokens,
  count_bucket,
  count_tokens,
  first_fit,
  pack_sequences,
)
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.models.ops import target_log_softmax
from toolformer_jax.runtime.oom import explain_out_of_memory
from toolformer_jax.runtime.progress import Progress

_TEXTS_PER_REPORT = 64  # texts between two reports of progress
_ROW_TOKENS = 256  # shortest row; longer sequences get rows of the next power of two


@dataclass(frozen=True)
class ScoreRequest:
  """A request for log p(token_ids[j] | start token, prefix_ids, token_ids[:j]) of some j.

  Attributes:
    prefix_ids: tokens before those of the text.
    token_ids: tokens of the text.
    target_positions: the indices j into `token_ids`.
  """

  prefix_ids: tuple[int, ...]
  token_ids: tuple[int, ...]
  target_positions: tuple[int, ...]


# The indices of targets, by prefix and text.
_Groups = dict[tuple[tuple[int, ...], tuple[int, ...]], set[int]]


@dataclass(frozen=True)
class _Sequence:
  """One sequence to compute: the logits at index logits_at[i] predict target_ids[i]."""

  token_ids: list[int]
  logits_at: list[int]
  target_ids: list[int]


def score(model: LanguageModel, requests: Sequence[ScoreRequest], *,
          scoring_tokens: int = 1024, counts: Counter[str] | None = None) -> list[np.ndarray]:
  """Returns for each request the natural-log probabilities of its targets, float32.

  Every sequence begins with the tokenizer's start token where it has one. Without one, a text's
  very first token has no probability: NaN.

  Args:
    model: the model.
    requests: what to score.
    scoring_tokens: number of tokens of a batch. More are faster on an accelerator, fewer need less
      memory; results depend on it only by rounding.
    counts: gets the numbers of tokens that are needed and computed, see `batching`.

  Raises:
    UserError: there is not enough memory.
  """
  groups = _grouped(requests)
  sequences = _sequences(model, groups)
  with explain_out_of_memory('lower scoring_tokens, or shorten the texts'):
    logprobs = _score_sequences(model, sequences, scoring_tokens, counts)
  known = {key: dict(zip(sorted(targets), values, strict=True))
           for (key, targets), values in zip(groups.items(), logprobs, strict=True)}
  return [np.array([known[request.prefix_ids, request.token_ids][j]
                    for j in request.target_positions], np.float32) for request in requests]


def needed_tokens(model: LanguageModel, requests: Sequence[ScoreRequest]) -> int:
  """Returns how many tokens `score` has to compute for `requests`, without padding."""
  return sum(len(sequence.token_ids) for sequence in _sequences(model, _grouped(requests)))


def _grouped(requests: Sequence[ScoreRequest]) -> _Groups:
  """Returns the targets of all requests for the same prefix and text."""
  groups: _Groups = {}
  for request in requests:
    groups.setdefault((request.prefix_ids, request.token_ids), set()).update(
        request.target_positions)
  return groups


def _sequences(model: LanguageModel, groups: _Groups) -> list[_Sequence]:
  return [_sequence(model, prefix, text, sorted(targets))
          for (prefix, text), targets in groups.items()]


def _sequence(model: LanguageModel, prefix: Sequence[int], text: Sequence[int],
              targets: Sequence[int]) -> _Sequence:
  start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
  offset = len(start) + len(prefix)
  tokens = [*start, *prefix, *text[:max(targets, default=0)]]
  return _Sequence(tokens, [offset + j - 1 for j in targets], [text[j] for j in targets])


def _score_sequences(model: LanguageModel, sequences: Sequence[_Sequence], scoring_tokens: int,
                     counts: Counter[str] | None) -> list[np.ndarray]:
  """Packs the sequences into rows by length, and scores the rows in batches.

  The host packs a batch while the device computes the one before. Two batches are never on the
  device at the same time: they would share its memory.
  """
  scores = [np.full(len(sequence.logits_at), np.nan, np.float32) for sequence in sequences]
  logprobs_BM: jax.Array | None = None
  targets: list[_Target] = []
  for rows, row_tokens in _batches(sequences, scoring_tokens, sharding.batch_shards(model.mesh)):
    batch, next_targets = _score_batch(sequences, rows, row_tokens)
    count_tokens(counts, sum(len(sequences[i].token_ids) for row in rows for i in row),
                 batch.packed.tokens_BT.size)
    _store(logprobs_BM, targets, scores)
    batch = jax.tree.map(model.put_batch, batch)
    with jax.set_mesh(model.mesh):
      logprobs_BM = target_logprobs(model.decoder, model.variables, batch)
    targets = next_targets
  _store(logprobs_BM, targets, scores)
  return scores


def _batches(sequences: Sequence[_Sequence], batch_tokens: int, shards: int
             ) -> Iterator[tuple[list[list[int]], int]]:
  """Yields the rows of each batch, as lists of indices of sequences, and their length.

  Where there are enough rows, every batch has one for each of `shards` devices.
  """
  by_length: dict[int, list[int]] = {}
  for i, sequence in enumerate(sequences):
    if sequence.logits_at and sequence.token_ids:
      by_length.setdefault(count_bucket(len(sequence.token_ids), _ROW_TOKENS), []).append(i)
  for row_tokens, members in sorted(by_length.items()):
    rows = first_fit([len(sequences[i].token_ids) for i in members], row_tokens)
    rows = [[members[i] for i in row] for row in rows]
    # A batch is padded to the row with the most targets, so rows with as many are batched together.
    rows.sort(key=lambda row: -_num_targets(sequences, row))
    batch_rows = max(shards, batch_tokens // row_tokens)
    for first in range(0, len(rows), batch_rows):
      yield rows[first:first + batch_rows], row_tokens


def _num_targets(sequences: Sequence[_Sequence], row: Sequence[int]) -> int:
  return sum(len(sequences[i].logits_at) for i in row)


class ScoreBatch(NamedTuple):
  """Packed rows, and the tokens to score in them; padding has zeros. All arrays are int32.

  Attributes:
    packed: the rows.
    at_BM: index in its row of the token before each target.
    targets_BM: ids whose log-probabilities are wanted.
  """

  packed: PackedTokens
  at_BM: jax.Array
  targets_BM: jax.Array


class _Target(NamedTuple):
  """A scored token: its sequence, its index among the sequence's targets, and its place, [B, M]."""

  sequence: int
  target: int
  row: int
  column: int


def _score_batch(sequences: Sequence[_Sequence], rows: Sequence[Sequence[int]], row_tokens: int
                 ) -> tuple[ScoreBatch, list[_Target]]:
  """Returns the arrays of one batch, on the host, and the targets in it."""
  B = count_bucket(len(rows))
  M = count_bucket(max(_num_targets(sequences, row) for row in rows), 16)
  packed, placements = pack_sequences([sequence.token_ids for sequence in sequences], rows, B,
                                      row_tokens)
  batch = ScoreBatch(packed, *np.zeros((2, B, M), np.int32))
  columns, targets = [0] * B, []
  for i, row, start in placements:
    for index, (at, target) in enumerate(
        zip(sequences[i].logits_at, sequences[i].target_ids, strict=True)):
      if at >= 0:  # else no token precedes it
        column = columns[row]
        batch.at_BM[row, column], batch.targets_BM[row, column] = start + at, target
        targets.append(_Target(i, index, row, column))
        columns[row] += 1
  return batch, targets


def _store(logprobs_BM: jax.Array | None, targets: Sequence[_Target], scores: list[np.ndarray]
           ) -> None:
  """Waits for the log-probabilities of a batch and writes them to `scores`."""
  values_BM = np.asarray(logprobs_BM)
  for sequence, index, row, column in targets:
    scores[sequence][index] = values_BM[row, column]


@functools.partial(jax.jit, static_argnames='decoder')
def target_logprobs(decoder: Decoder, variables: dict[str, Any], batch: ScoreBatch) -> jax.Array:
  """Returns log p(target | tokens of its sequence up to `at`), [B, M], float32."""
  packed = batch.packed
  logits_BMV, _ = decoder.apply(
      variables, packed.tokens_BT, positions_BT=packed.positions_BT,
      segment_ids_BT=packed.segment_ids_BT, logits_at_BM=batch.at_BM)
  return target_log_softmax(logits_BMV, batch.targets_BM)


def score_texts(model: LanguageModel, texts: Sequence[str], *, scoring_tokens: int = 1024,
                names: Sequence[str] | None = None) -> list[dict[str, Any]]:
  """Returns {'token_ids': ..., 'logprobs': ...} of each text; None for a text's first token.

  Args:
    model: the model.
    texts: the texts.
    scoring_tokens: number of tokens of a batch.
    names: how errors refer to each text; by default 'text 0', ...

  Raises:
    UserError: a text is longer than the model allows, or there is not enough memory.
  """
  model = model.without_start_token()  # texts are scored as they are
  ids = [model.tokenizer.encode(text) for text in texts]
  names = names or [f'text {i}' for i in range(len(texts))]
  for name, tokens in zip(names, ids, strict=True):
    if len(tokens) > model.config.max_tokens:
      raise UserError(f'{name} has {len(tokens)} tokens, and the model has only '
                      f'{model.config.max_tokens} positions; split it')
  logprobs = []
  with Progress('scoring', len(texts), 'texts') as progress:
    for first in range(0, len(texts), _TEXTS_PER_REPORT):
      requests = [ScoreRequest((), tuple(tokens), tuple(range(len(tokens))))
                  for tokens in ids[first:first + _TEXTS_PER_REPORT]]
      logprobs += score(model, requests, scoring_tokens=scoring_tokens)
      progress.advance(len(requests))
  return [{'token_ids': tokens,
           'logprobs': [None if math.isnan(value) else value for value in values.tolist()]}
          for tokens, values in zip(ids, logprobs, strict=True)]
