"""Packed rows hold every target of every text once, and nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.training.packing import Example, pack

ROW = 8
texts = st.lists(st.lists(st.integers(3, 60), max_size=20), min_size=1, max_size=12)


def _example(ids):
  return Example(ids, [0.5 if i % 3 == 0 else 1.0 for i in ids])


def _triples(rows):
  """Returns (token, target, weight) of all tokens by (row, segment)."""
  found = {}
  for r, t in zip(*np.nonzero(rows.segment_ids_RT), strict=True):
    found.setdefault((r, rows.segment_ids_RT[r, t]), []).append(
        (rows.positions_RT[r, t], rows.input_tokens_RT[r, t], rows.target_tokens_RT[r, t],
         rows.loss_weights_RT[r, t]))
  return found


def _expected(ids, tokenizer, end):
  """Returns (position, token, target, weight) of a text, in pieces of at most a row."""
  start = tokenizer.start_id
  whole = [start, *ids, *[start] * end]
  weights = [*_example(ids).loss_weights, *[1.0] * end]
  steps = list(zip(whole, whole[1:], weights, strict=False))
  return [[(i, *step) for i, step in enumerate(steps[first:first + ROW])]
          for first in range(0, len(steps), ROW)]


@given(texts=texts, end=st.booleans())
def test_every_piece_is_there_once(texts, end, tokenizer):
  rows = pack([_example(ids) for ids in texts], tokenizer, ROW, end)
  expected = [piece for ids in texts for piece in _expected(ids, tokenizer, end)]
  assert sorted(_triples(rows).values()) == sorted(expected)


@given(texts=texts)
def test_pieces_lie_side_by_side_and_empty_places_count_nothing(texts, tokenizer):
  rows = pack([_example(ids) for ids in texts], tokenizer, ROW, True)
  empty = rows.segment_ids_RT == 0
  assert not rows.loss_weights_RT[empty].any()
  # Once a row is empty it stays so, and segments are numbered in order.
  steps = np.diff(rows.segment_ids_RT, axis=1)
  assert ((steps == 0) | (steps == 1) | empty[:, 1:]).all()
  assert (rows.segment_ids_RT[:, 0] == 1).all()
  assert not (empty[:, :-1] & ~empty[:, 1:]).any()


def test_a_token_of_any_id_can_be_a_target(tokenizer):
  rows = pack([Example([0, 0], [1.0, 1.0])], tokenizer, ROW, False)
  assert rows.loss_weights_RT[0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_empty_rows_are_added_at_the_end(tokenizer):
  rows = pack([Example([5], [1.0])], tokenizer, ROW, True)
  padded = rows.pad(3)
  assert len(padded) == 3
  assert padded.take([0]).input_tokens_RT.tolist() == rows.input_tokens_RT.tolist()
  assert not padded.take([1, 2]).segment_ids_RT.any()


def test_rows_of_texts_of_realistic_lengths_are_full(tokenizer):
  # Lengths of texts with calls: most are of one paragraph, few are long, and none fits twice.
  lengths = np.random.default_rng(0).lognormal(np.log(120), 0.6, 2000).clip(8, 1400).astype(int)
  rows = pack([Example([5] * size, [1.0] * size) for size in lengths], tokenizer, 1024, True)
  assert (rows.segment_ids_RT > 0).mean() > 0.99
  assert rows.loss_weights_RT.sum() == (lengths + 1).sum()  # and of each the end of the text
