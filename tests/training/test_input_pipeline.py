"""Batches depend only on seed and step, and are the same rows on any mesh."""

import itertools

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax import sharding
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.input_pipeline import batch_indices, put_batch, with_row_multiple
from toolformer_jax.training.packing import Example, Sequences, pack, segments_of


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


def sequences_of(tokenizer, lengths, row_tokens):
  examples = [Example([i] * size, [1.0] * size) for i, size in enumerate(lengths)]
  return Sequences(segments_of(examples, tokenizer, row_tokens, False), row_tokens)


def texts_in(rows):
  """Returns the segments of all rows: the id that each repeats, and how many targets it has."""
  found = []
  for tokens, targets, segments in zip(
      rows.input_tokens_RT, rows.target_tokens_RT, rows.segment_ids_RT, strict=True):
    for number in range(1, segments.max() + 1):
      at = segments == number
      found.append((int(targets[at][0]), int(at.sum())))
      assert {*targets[at].tolist()} | {*tokens[at].tolist()[1:]} == {found[-1][0]}
  return sorted(found)


@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=20), batch=st.integers(1, 6),
       step=st.integers(0, 9))
def test_a_batch_has_its_sequences_whatever_rows_they_share(tokenizer, lengths, batch, step):
  data = sequences_of(tokenizer, lengths, 8)
  config = FinetuneConfig(steps=20, batch_size=batch, row_tokens=8, num_microbatches=2)
  mesh = sharding.make_mesh(2, 1, 1, devices=jax.devices()[:2])
  data = with_row_multiple(data, config, mesh)
  indices = next(batch_indices(len(data), batch, 0, step))
  rows = data.take(indices)
  assert texts_in(rows) == sorted((i, lengths[i]) for i in indices.tolist())
  assert len(rows) == data.row_multiple and len(rows) % 4 == 0


def test_a_text_longer_than_a_row_is_several_sequences(tokenizer):
  assert len(sequences_of(tokenizer, [20, 3], 8)) == 4


def test_batches_of_sequences_are_packed_densely(tokenizer):
  lengths = np.random.default_rng(0).integers(50, 230, 2000)
  data = sequences_of(tokenizer, lengths.tolist(), 1024)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  data = with_row_multiple(data, FinetuneConfig(steps=50), mesh)
  counts = [np.count_nonzero(data.take(indices).segment_ids_RT)
            for indices in itertools.islice(batch_indices(2000, 128, 0, 0), 10)]
  assert data.row_multiple < 24 and np.mean(counts) / (data.row_multiple * 1024) > 0.8
