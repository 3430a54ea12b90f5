"""Packs examples of any length into rows of one length, several texts to a row.

Tokens of a row see only their own segment, and positions start again in each: a text's loss is the
same beside others as alone (law 3).
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from toolformer_jax.inference.batching import first_fit
from toolformer_jax.tokenizer import Tokenizer


class Example(NamedTuple):
  """A text to learn: its ids, and how much the loss of predicting each of them counts."""

  ids: list[int]
  weights: list[float]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=['tokens_RT', 'targets_RT', 'positions_RT', 'segments_RT', 'weights_RT'],
    meta_fields=[],
)
@dataclass(frozen=True)
class PackedRows:
  """R rows of T tokens.

  Attributes:
    tokens_RT: ids, int32; what they are where the weight is 0 does not matter.
    targets_RT: the id that follows each token in its own text.
    positions_RT: place of each token in its piece of text.
    segments_RT: number of the token's piece in its row, from 1; 0 where the row is empty.
    weights_RT: of the loss of each target, float32; 0 where the row is empty.
  """

  tokens_RT: np.ndarray
  targets_RT: np.ndarray
  positions_RT: np.ndarray
  segments_RT: np.ndarray
  weights_RT: np.ndarray

  @classmethod
  def empty(cls, rows: int, row_tokens: int) -> 'PackedRows':
    """Returns rows without any token."""
    ids = [np.zeros((rows, row_tokens), np.int32) for _ in range(4)]
    return cls(*ids, np.zeros((rows, row_tokens), np.float32))

  def __len__(self) -> int:
    return len(self.tokens_RT)

  def take(self, rows: Sequence[int] | np.ndarray) -> 'PackedRows':
    """Returns a copy of the given rows."""
    return jax.tree.map(lambda array: array[rows], self)

  def pad(self, rows: int) -> 'PackedRows':
    """Returns these rows and after them empty ones, `rows` in all."""
    filling = PackedRows.empty(rows - len(self), self.tokens_RT.shape[1])
    return jax.tree.map(lambda *parts: np.concatenate(parts), self, filling)


@dataclass(frozen=True)
class _Piece:
  """A stretch of one text: tokens, what follows each of them, and how much that counts."""

  tokens: list[int]
  targets: list[int]
  weights: list[float]


def pack(examples: Sequence[Example], tokenizer: Tokenizer, row_tokens: int,
         end_of_text: bool) -> PackedRows:
  """Packs `examples` by first fit into rows of `row_tokens`.

  Every text begins with the tokenizer's start token where it has one, so that its first token is
  a target too, and with `end_of_text` ends in the end token as a target of weight 1. What is
  longer than a row is cut into pieces that do not see each other; no target is lost.
  """
  end_id = _end_id(tokenizer) if end_of_text else None
  pieces = [piece for example in examples
            for piece in _pieces(example, tokenizer.start_id, end_id, row_tokens)]
  places = first_fit([len(piece.tokens) for piece in pieces], row_tokens)
  rows = PackedRows.empty(len(places), row_tokens)
  for r, members in enumerate(places):
    _fill(rows, r, [pieces[i] for i in members])
  return rows


def _end_id(tokenizer: Tokenizer) -> int | None:
  """Returns the id that ends a text: what separates documents in pretraining, if it is known."""
  return tokenizer.start_id if tokenizer.start_id in tokenizer.end_ids else tokenizer.eos_id


def _pieces(example: Example, start_id: int | None, end_id: int | None,
            row_tokens: int) -> Iterator[_Piece]:
  """Yields the stretches of a text, each at most a row long."""
  start = [] if start_id is None else [start_id]
  end = [] if end_id is None else [end_id]
  ids = [*start, *example.ids, *end]
  weights = [0.0 for _ in start] + [*example.weights] + [1.0 for _ in end]
  for first in range(0, len(ids) - 1, row_tokens):
    last = min(first + row_tokens, len(ids) - 1)
    yield _Piece(ids[first:last], ids[first + 1:last + 1], weights[first + 1:last + 1])


def _fill(rows: PackedRows, r: int, pieces: Sequence[_Piece]) -> None:
  """Writes `pieces` one after the other into the empty row `r`."""
  offset = 0
  for segment, piece in enumerate(pieces, 1):
    size = len(piece.tokens)
    at = np.s_[r, offset:offset + size]
    rows.tokens_RT[at], rows.targets_RT[at] = piece.tokens, piece.targets
    rows.positions_RT[at], rows.segments_RT[at] = np.arange(size), segment
    rows.weights_RT[at] = piece.weights
    offset += size
