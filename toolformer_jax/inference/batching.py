"""Shapes: how work of any size is cut into the few shapes that get compiled."""

from collections.abc import Sequence

_LENGTH_STEP = 64


def length_bucket(tokens: int) -> int:
  """Returns the length to which rows of up to `tokens` tokens are filled: a multiple of 64."""
  return max(1, -(-tokens // _LENGTH_STEP)) * _LENGTH_STEP


def count_bucket(count: int, smallest: int = 1) -> int:
  """Returns the power of two to which a number of rows or places is filled."""
  return max(smallest, 1 << max(count - 1, 0).bit_length())


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
  """Packs items into rows of `capacity`, the longest first, each into the first row with room.

  Args:
    lengths: size of each item, at most `capacity`.
    capacity: size of a row.

  Returns:
    for each row the indices of its items. The same lengths always give the same rows.
  """
  rows, free = [], []
  for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
    row = next((r for r, room in enumerate(free) if room >= lengths[item]), None)
    if row is None:
      rows.append([])
      free.append(capacity)
      row = len(rows) - 1
    rows[row].append(item)
    free[row] -= lengths[item]
  return rows
