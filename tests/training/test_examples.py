"""Examples keep the ids of the text, whatever calls are inserted into it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.annotation.merge import with_char_offsets
from toolformer_jax.calls import DEFAULT_SYNTAX, Call, insert_calls
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.training.examples import annotated_example, token_position
from toolformer_jax.training.tokenizer_training import train_tokenizer

from .plain import plain_example

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
  ids = annotated_example(record, tokenizer).token_ids
  for position, opening, closing in _pieces(record, tokenizer):
    piece = opening + closing
    assert ids[position:position + len(piece)] == piece
    del ids[position:position + len(piece)]
  assert ids == tokenizer.encode(text) == plain_example(text, tokenizer).token_ids


@given(text=words, calls=places)
def test_ids_spell_the_text_with_its_calls(text, calls, tokenizer):
  record = _record_within(text, calls, tokenizer)
  spelled = [tokenizer.token_bytes[i] for i in tokenizer.encode(text)]
  for call in reversed(record.calls):
    spelled.insert(call.position, DEFAULT_SYNTAX.linearise(call.call()).encode())
  ids = annotated_example(record, tokenizer).token_ids
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
  assert annotated_example(record, tokenizer).loss_weights == [1.0] * len(ids)


def test_a_call_outside_its_text_is_refused(tokenizer):
  with pytest.raises(UserError, match='document d: position 9'):
    annotated_example(_record('short', [(9, '1+1', '2')]), tokenizer)


@pytest.mark.parametrize(('tool', 'argument', 'result', 'why'), [
  ('Calculator', '1 + 1', None, 'has no result'),
  ('Calculator', '1 + 1', '3] [60', 'cannot be written'),
  ('Calculator', '24) -> 1] [QA(', '2', 'cannot be written'),
  ('a b', '1', '2', 'cannot be written'),
])
def test_calls_that_cannot_be_written_are_refused(tokenizer, tool, argument, result, why):
  record = AnnotatedDocument(Document('d', 'two'), (
      ScoredCall('d', tool, argument, 0, 0.5, result),))
  with pytest.raises(UserError, match=f'^document d: .*{why}'):
    annotated_example(record, tokenizer)


def test_the_call_of_the_paper(tokenizer):
  record = _record('I have 84.', [(7, '48 + 36', '84')])
  ids = annotated_example(record, tokenizer).token_ids
  assert tokenizer.decode(ids) == 'I have  [Calculator(48 + 36) -> 84]84.'
  assert ids == insert_calls(tokenizer.encode('I have 84.'),
                             [(7, Call('Calculator', '48 + 36', '84'))], tokenizer.encode)


@pytest.fixture(scope='module')
def other_tokenizer():
  return train_tokenizer(['There were 12 ducks and 34 geese on the pond.'] * 20, vocab_size=300)


def test_a_model_with_another_tokenizer_learns_calls_at_the_same_characters(
    tokenizer, other_tokenizer):
  text = 'There were 12 ducks and 34 geese. The answer is 46.'
  place = text.index(' 46.')
  position = len(tokenizer.encode(text[:place]))
  assert position != len(other_tokenizer.encode(text[:place]))
  record = with_char_offsets(_record(text, [(position, '12 + 34', '46')]), tokenizer)
  assert record.calls[0].char_offset == place
  for one in (tokenizer, other_tokenizer):
    ids = annotated_example(record, one).token_ids
    assert one.decode(ids) == (
        'There were 12 ducks and 34 geese. The answer is [Calculator(12 + 34) -> 46] 46.')


def test_a_call_behind_the_end_of_its_text_is_refused(tokenizer, other_tokenizer):
  text = 'The answer is 46.'
  record = with_char_offsets(_record(text, [(1, '12 + 34', '46')]), tokenizer)
  call = dataclasses.replace(record.calls[0], char_offset=len(text) + 1)
  for one in (tokenizer, other_tokenizer):
    with pytest.raises(UserError, match=r'document .*: the call .* at character 18, .* has 17'):
      annotated_example(dataclasses.replace(record, calls=(call,)), one)


@given(text=words, calls=places)
def test_with_another_tokenizer_a_call_comes_before_the_token_of_its_place(
    text, calls, tokenizer, other_tokenizer):
  record = with_char_offsets(_record_within(text, calls, tokenizer), tokenizer)
  ids = other_tokenizer.encode(text)
  for call in record.calls:
    assert token_position(call, text, tokenizer) == call.position
    at = token_position(call, text, other_tokenizer)
    before = other_tokenizer.characters_before(text, at)
    assert before <= call.char_offset
    if at < len(ids) and before < call.char_offset:
      assert other_tokenizer.characters_before(text, at + 1) > call.char_offset
