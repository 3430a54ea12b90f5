"""Batches: the few shapes that are compiled, packing into rows, arrays with a value per row."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

_LENGTH_STEP = 64

Row = TypeVar('Row')

# In counts: the tokens that a result needs, and all that the device computes, with padding.
TOKENS_NEEDED, TOKENS_COMPUTED = 'tokens needed', 'tokens computed'


def count_tokens(counts: Counter[str] | None, needed: int, computed: int) -> None:
  """Adds to `counts`, if given, the tokens of a batch that are needed, and all that are computed.
  """
  if counts is not None:
    counts.update({TOKENS_NEEDED: needed, TOKENS_COMPUTED: computed})


def length_bucket(tokens: int) -> int:
  """Returns the length to which rows of up to `tokens` tokens are padded: a multiple of 64."""
  return max(1, -(-tokens // _LENGTH_STEP)) * _LENGTH_STEP


def count_bucket(count: int, smallest: int = 1) -> int:
  """Returns the power of two, at least `smallest`, to which `count` rows or slots are padded."""
  return max(smallest, 1 << max(count - 1, 0).bit_length())


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
  """Packs items into rows of `capacity`: the longest first, each into the first row with room.

  A segment tree of the largest room finds that row, so that the time is n log n.

  Args:
    lengths: size of each item, at most `capacity`.
    capacity: size of a row.

  Returns:
    for each row the indices of its items. The same lengths always give the same rows.
  """
  leaves = count_bucket(len(lengths))
  room = [capacity] * (2 * leaves)  # of node i, whose children are 2 i and 2 i + 1
  rows: list[list[int]] = [[] for _ in lengths]
  for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
    node = 1
    while node < leaves:
      node *= 2
      node += room[node] < lengths[item]
    rows[node - leaves].append(item)
    room[node] -= lengths[item]
    while node := node // 2:
      room[node] = max(room[2 * node], room[2 * node + 1])
  return [row for row in rows if row]


class PackedTokens(NamedTuple):
  """Sequences packed into rows; padding has zeros. All arrays are int32.

  Attributes:
    tokens_BT: token ids.
    positions_BT: position of each token in its sequence, from 0.
    segment_ids_BT: number of the token's sequence in its row, from 1.
  """

  tokens_BT: jax.Array
  positions_BT: jax.Array
  segment_ids_BT: jax.Array


class Placement(NamedTuple):
  """Where a sequence lies in packed rows.

  Attributes:
    sequence: index of the sequence.
    row: index of its row.
    start: index in the row of its first token.
  """

  sequence: int
  row: int
  start: int


def pack_sequences(sequences: Sequence[Sequence[int]], rows: Sequence[Sequence[int]],
                   num_rows: int, row_tokens: int) -> tuple[PackedTokens, list[Placement]]:
  """Packs sequences into arrays [num_rows, row_tokens], on the host.

  Args:
    sequences: token ids of each sequence.
    rows: for each row the indices of its sequences, as `first_fit` returns them.
    num_rows: number of rows; those after `rows` are padding.
    row_tokens: length of a row.

  Returns:
    the arrays, and the placement of each sequence.
  """
  packed = PackedTokens(*np.zeros((3, num_rows, row_tokens), np.int32))
  placements = []
  for row, members in enumerate(rows):
    start = 0
    for segment_id, i in enumerate(members, 1):
      end = start + len(sequences[i])
      packed.tokens_BT[row, start:end] = sequences[i]
      packed.positions_BT[row, start:end] = np.arange(end - start)
      packed.segment_ids_BT[row, start:end] = segment_id
      placements.append(Placement(i, row, start))
      start = end
  return packed, placements


def row_values(rows: Sequence[Row | None], value: Callable[[Row], Any], dtype: Any = np.int32
               ) -> np.ndarray:
  """Returns `value` of each row, [B]; 0 for None, a row without work."""
  return np.array([0 if row is None else value(row) for row in rows], dtype)


def busy_first(busy: Sequence[bool], size: int) -> list[int]:
  """Returns the indices of `size` rows to keep: those with work, then as many others."""
  return sorted(range(len(busy)), key=lambda row: not busy[row])[:size]
