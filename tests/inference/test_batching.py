"""Rows of packed items are those of first fit, found in n log n steps."""

from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.inference.batching import first_fit


def plain_first_fit(lengths, capacity):
  """The definition: each item, the longest first, goes into the first row with room."""
  rows, room = [], []
  for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
    row = next((r for r, left in enumerate(room) if left >= lengths[item]), len(rows))
    if row == len(rows):
      rows.append([])
      room.append(capacity)
    rows[row].append(item)
    room[row] -= lengths[item]
  return rows


@given(st.integers(1, 40).flatmap(lambda capacity: st.tuples(
    st.lists(st.integers(0, capacity), max_size=60), st.just(capacity))))
def test_rows_are_those_of_first_fit(items):
  assert first_fit(*items) == plain_first_fit(*items)


class Counted(int):
  """A length that counts how often it is compared or subtracted."""

  uses = 0

  def __rsub__(self, other):
    Counted.uses += 1
    return int(other) - int(self)

  def __gt__(self, other):
    Counted.uses += 1
    return int(self) > int(other)

  __lt__ = __gt__


def test_a_thousand_items_take_a_few_steps_each():
  Counted.uses = 0
  rows = first_fit([Counted(600 + i % 7) for i in range(1024)], 1000)
  assert len(rows) == 1024  # the plain search would look at half a million rows
  assert Counted.uses < 1024 * 30
