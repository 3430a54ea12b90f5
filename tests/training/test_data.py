"""Examples keep the text's own ids; batches depend on seed and step alone."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax import sharding
from toolformer_jax.calls import DEFAULT_SYNTAX, Call, insert_calls
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.training.examples import annotated_example, plain_example
from toolformer_jax.training.input_pipeline import batch_indices, put_batch
from toolformer_jax.training.packing import Example, pack

words = st.text(st.characters(codec='utf-8', exclude_categories=['Cs']), max_size=30)
results = st.text('0123456789. abc', max_size=8)
places = st.lists(st.tuples(st.integers(0, 10), st.sampled_from(['1+1', '', 'a b']), results),
                  max_size=3)


def _record(text, calls):
  scored = tuple(ScoredCall('d', 'Calculator', argument, position, 0.5, result)
                 for position, argument, result in calls)
  return AnnotatedDocument(Document('d', text), scored)


def _record_within(text, calls, tokenizer):
  size = len(tokenizer.encode(text))
  return _record(text, sorted((min(position, size), a, r) for position, a, r in calls))


def _pieces(record, tokenizer):
  """Returns position, ids of the opening and ids of the closing piece of every call."""
  return [(call.position, tokenizer.encode(DEFAULT_SYNTAX.opening(call.call())),
           tokenizer.encode(DEFAULT_SYNTAX.closing(call.result))) for call in record.calls]


@given(text=words, calls=places)
def test_without_the_call_pieces_the_ids_are_those_of_the_text(text, calls, tokenizer):
  record = _record_within(text, calls, tokenizer)
  ids = annotated_example(record, tokenizer).ids
  for position, opening, closing in _pieces(record, tokenizer):
    piece = opening + closing
    assert ids[position:position + len(piece)] == piece
    del ids[position:position + len(piece)]
  assert ids == tokenizer.encode(text) == plain_example(text, tokenizer).ids


@given(text=words, calls=places)
def test_ids_spell_the_text_with_its_calls(text, calls, tokenizer):
  record = _record_within(text, calls, tokenizer)
  spelled = [tokenizer.token_bytes[i] for i in tokenizer.encode(text)]
  for call in reversed(record.calls):
    spelled.insert(call.position, DEFAULT_SYNTAX.linearise(call.call()).encode())
  ids = annotated_example(record, tokenizer).ids
  assert b''.join(tokenizer.token_bytes[i] for i in ids) == b''.join(spelled)


@given(text=words, calls=places)
def test_masking_silences_the_closing_pieces_and_nothing_else(text, calls, tokenizer):
  record = _record_within(text, calls, tokenizer)
  ids, weights = annotated_example(record, tokenizer, mask_results=True)
  expected, at = [], 0
  for position, opening, closing in _pieces(record, tokenizer):
    expected += [1.0] * (position - at + len(opening)) + [0.0] * len(closing)
    at = position
  assert weights == expected + [1.0] * (len(tokenizer.encode(text)) - at)
  assert annotated_example(record, tokenizer).weights == [1.0] * len(ids)


def test_a_call_outside_its_text_is_refused(tokenizer):
  with pytest.raises(UserError, match='document d: position 9'):
    annotated_example(_record('short', [(9, '1+1', '2')]), tokenizer)


def test_the_call_of_the_paper(tokenizer):
  record = _record('I have 84.', [(7, '48 + 36', '84')])
  ids = annotated_example(record, tokenizer).ids
  assert tokenizer.decode(ids) == 'I have  [Calculator(48 + 36) -> 84]84.'
  assert ids == insert_calls(tokenizer.encode('I have 84.'),
                             [(7, Call('Calculator', '48 + 36', '84'))], tokenizer.encode)


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
