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
  """Packs items into rows of `capacity`: the longest first, each into the first row with room.

  A tree of the largest room below each node finds that row, so that the time is n log n.

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
