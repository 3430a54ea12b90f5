"""Batches depend only on seed and step, and are the same rows on any mesh."""

import itertools

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax import sharding
from toolformer_jax.training.input_pipeline import batch_indices, put_batch
from toolformer_jax.training.packing import Example, pack


@given(count=st.integers(1, 9), batch=st.integers(1, 5), seed=st.integers(0, 99),
       start=st.integers(0, 20))
def test_a_step_has_the_same_batch_wherever_a_run_starts(count, batch, seed, start):
  whole = itertools.islice(batch_indices(count, batch, seed, 0), start, start + 3)
  for one, other in zip(whole, batch_indices(count, batch, seed, start), strict=False):
    np.testing.assert_array_equal(one, other)


def test_every_epoch_has_every_row_in_another_order():
  seen = [batch.tolist() for batch in itertools.islice(batch_indices(12, 4, 0, 0), 6)]
  first, second = sum(seen[:3], []), sum(seen[3:], [])
  assert sorted(first) == sorted(second) == list(range(12))
  assert first != second
  assert first != sum((b.tolist() for b in itertools.islice(batch_indices(12, 4, 1, 0), 3)), [])


def test_a_batch_is_its_rows_on_any_mesh(tokenizer):
  rows = pack([Example([i] * 4, [1.0] * 4) for i in range(9)], tokenizer, 4, False)
  numbers = np.array([7, 0, 3, 3])
  for shape in (1, 1, 1), (2, 2, 2), (4, 1, 2), (8, 1, 1):  # 8: 4 rows cannot be split
    mesh = sharding.make_mesh(*shape, devices=jax.devices()[:np.prod(shape)])
    jax.tree.map(np.testing.assert_array_equal, put_batch(rows, numbers, mesh), rows.take(numbers))
