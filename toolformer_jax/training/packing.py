"""Packs examples of any length into rows of one length, several sequences to a row.

Attention stays within a segment, and positions start again in each: the loss of a text is the same
in a packed row as alone (law 3).
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
  """A tokenized text of N tokens.

  Attributes:
    token_ids: the N ids.
    loss_weights: N floats: the weight of the loss of predicting each token.
  """

  token_ids: list[int]
  loss_weights: list[float]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=['input_tokens_RT', 'target_tokens_RT', 'positions_RT', 'segment_ids_RT',
                 'loss_weights_RT'],
    meta_fields=[],
)
@dataclass(frozen=True)
class PackedRows:
  """R rows of T tokens: a data set, or a batch of it.

  Attributes:
    input_tokens_RT: token ids, int32; 0 for padding.
    target_tokens_RT: the id that follows each input token in its text, int32.
    positions_RT: position of each token in its segment, from 0, int32.
    segment_ids_RT: number of the token's segment in its row, from 1; 0 for padding; int32.
    loss_weights_RT: weight of the loss of each target, float32; 0 for padding.
  """

  input_tokens_RT: np.ndarray
  target_tokens_RT: np.ndarray
  positions_RT: np.ndarray
  segment_ids_RT: np.ndarray
  loss_weights_RT: np.ndarray

  @classmethod
  def empty(cls, rows: int, row_tokens: int) -> 'PackedRows':
    """Returns rows that hold only padding."""
    def zeros(dtype: np.typing.DTypeLike = np.int32) -> np.ndarray:
      return np.zeros((rows, row_tokens), dtype)
    return cls(zeros(), zeros(), zeros(), zeros(), zeros(np.float32))

  def __len__(self) -> int:
    return len(self.input_tokens_RT)

  def take(self, indices: Sequence[int] | np.ndarray) -> 'PackedRows':
    """Returns a copy of the rows at `indices`."""
    return jax.tree.map(lambda array: array[indices], self)

  def pad(self, rows: int) -> 'PackedRows':
    """Returns these rows followed by empty ones, `rows` in total."""
    padding = PackedRows.empty(rows - len(self), self.input_tokens_RT.shape[1])
    return jax.tree.map(lambda *parts: np.concatenate(parts), self, padding)


@dataclass(frozen=True)
class Sequences:
  """N tokenized sequences, of which each batch is packed into rows when it is drawn.

  Attributes:
    segments: the sequences.
    row_tokens: tokens of a row.
    row_multiple: the number of rows of a batch is a multiple of this, so that few shapes are
      compiled.
  """

  segments: Sequence['Segment']
  row_tokens: int
  row_multiple: int = 1

  def __len__(self) -> int:
    return len(self.segments)

  def take(self, indices: Sequence[int] | np.ndarray) -> PackedRows:
    """Returns the sequences at `indices` in as few rows as first fit finds, and padding rows."""
    rows = pack_segments([self.segments[i] for i in indices], self.row_tokens)
    return rows.pad(-(-len(rows) // self.row_multiple) * self.row_multiple)


@dataclass(frozen=True)
class Segment:
  """A text, or a part of one, that fits into a row: input tokens, targets, and their weights."""

  inputs: list[int]
  targets: list[int]
  loss_weights: list[float]


def pack(examples: Sequence[Example], tokenizer: Tokenizer, row_tokens: int,
         end_of_text: bool) -> PackedRows:
  """Packs `examples` by first fit into rows of `row_tokens`; see `segments_of`."""
  return pack_segments(segments_of(examples, tokenizer, row_tokens, end_of_text), row_tokens)


def segments_of(examples: Sequence[Example], tokenizer: Tokenizer, row_tokens: int,
                end_of_text: bool) -> list[Segment]:
  """Returns `examples` as sequences of at most `row_tokens`.

  Every text begins with the tokenizer's start token, if it has one, so that the first token of the
  text is a target too. With `end_of_text` it ends with the end token, a target of weight 1. A text
  that is longer than a row is cut into segments that do not attend to each other; every token is
  still a target once.
  """
  end_id = _end_id(tokenizer) if end_of_text else None
  return [segment for example in examples
          for segment in _segments(example, tokenizer.start_id, end_id, row_tokens)]


def pack_segments(segments: Sequence[Segment], row_tokens: int) -> PackedRows:
  """Packs `segments` by first fit into rows of `row_tokens`."""
  members_of_rows = first_fit([len(segment.inputs) for segment in segments], row_tokens)
  return rows_of([[segments[i] for i in members] for members in members_of_rows], row_tokens)


def rows_of(segments_of_rows: Sequence[Sequence[Segment]], row_tokens: int) -> PackedRows:
  """Returns rows that hold the given segments."""
  rows = PackedRows.empty(len(segments_of_rows), row_tokens)
  for r, segments in enumerate(segments_of_rows):
    _fill(rows, r, segments)
  return rows


def _end_id(tokenizer: Tokenizer) -> int | None:
  """Returns the id that ends a text: the one that separated documents in pretraining, if known."""
  return tokenizer.start_id if tokenizer.start_id in tokenizer.end_ids else tokenizer.eos_id


def _segments(example: Example, start_id: int | None, end_id: int | None,
              row_tokens: int) -> Iterator[Segment]:
  """Yields the segments of a text, each at most a row long."""
  start = [] if start_id is None else [start_id]
  end = [] if end_id is None else [end_id]
  ids = [*start, *example.token_ids, *end]
  loss_weights = [0.0 for _ in start] + [*example.loss_weights] + [1.0 for _ in end]
  for first in range(0, len(ids) - 1, row_tokens):
    last = min(first + row_tokens, len(ids) - 1)
    yield Segment(ids[first:last], ids[first + 1:last + 1], loss_weights[first + 1:last + 1])


def _fill(rows: PackedRows, r: int, segments: Sequence[Segment]) -> None:
  """Writes `segments` one after the other into the empty row `r`."""
  offset = 0
  for number, segment in enumerate(segments, 1):
    size = len(segment.inputs)
    at = np.s_[r, offset:offset + size]
    rows.input_tokens_RT[at], rows.target_tokens_RT[at] = segment.inputs, segment.targets
    rows.positions_RT[at], rows.segment_ids_RT[at] = np.arange(size), number
    rows.loss_weights_RT[at] = segment.loss_weights
    offset += size
