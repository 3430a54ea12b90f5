"""The first number, or that after `=`; the first 5 or 20 words; calls do not count."""

import hypothesis
import pytest
from hypothesis import strategies as st

from toolformer_jax.calls import DEFAULT_SYNTAX, Call
from toolformer_jax.evaluation.answer_matching import (
    FirstNumber,
    FirstWords,
    first_words,
    predicted_number,
)
from toolformer_jax.evaluation.config import EvaluationConfig

NUMBER, FIVE, TWENTY = FirstNumber(), FirstWords(5), FirstWords(20)
SETTINGS = EvaluationConfig()


@pytest.mark.parametrize(('prediction', 'extracted'), [
    (' 8 apples, since 3 were eaten.', '8'),
    (' the sum 5+3=8 of both', '8'),  # an equation: what comes after its `=`
    (' 5 + 3 = 8, and 9 - 1 = 7', '8'),  # the first of two equations
    (' 12, written x = y', '12'),  # no number after `=`
    (' $1,250.50 in all', '$1,250.50'),
    (' about .5 of it', '.5'),
    (' 3.', '3'),
    (' 1,2 and 3', '1'),
    (' below zero: -4 degrees', '-4'),
    (' 7-3 is what', '7'),
    (' 10 = 4 - -6', '4'),
    (' 1/2 of it', '1/2'),
    (' 2 3/4 cups', '2 3/4'),
    (' 5e3', '5e3'),
    (' 3:31 hours, or 211 minutes', '211'),  # a time is no number
    (' 21/3/2018', '21'),
    (' 1/0, or 7', '7'),
    (' 5 eggs', '5'),
    (' 5e', '5'),
    (' nobody knows', None),
    ('', None),
])
def test_the_number_that_is_predicted(prediction, extracted):
  number = predicted_number(prediction)
  assert (number and prediction[number.start:number.end]) == extracted


@pytest.mark.parametrize(('prediction', 'answer', 'correct'), [
    (' 51.', '51.0', True),
    (' $51', '51.0', True),
    (' 1,234 people', '1234', True),
    (' 0.33', '0.3333333', True),  # the calculator rounds to two decimals
    (' 0.34', '0.3333333', False),
    (' 5', '51', False),
    (' -5', '5', False),
    (' 9', '9 (apples)', True),  # as ASDiv writes its answers
    (' none', '0', False),
    (' 1/2', '0.5', True),
    (' 1/2', '1', False),
    (' 3 4/5', '3.8', True),
    (' -1 1/2', '-1.5', True),
    (' 0.75', '3/4', True),
    (' 0', '1e-05', True),
    (' 10000000000000000', '1e+16', True),
    (' 1', '1e+16', False),
    (' 5', '5:30', False),
    (' 1' + '0' * 5000, '1', False),
    (' 7', 'Ann', False),  # an answer without a number, which `numeric_only` leaves out
])
def test_numbers_are_compared_by_value(prediction, answer, correct):
  assert NUMBER.match(prediction, [answer], SETTINGS).correct == correct


@hypothesis.given(st.integers(-10**9, 10**9), st.integers(-10**6, 10**6), st.booleans())
def test_any_number_is_read_back(value, other, comma):
  spelled = f'{value:,}' if comma else str(value)
  assert NUMBER.match(f' {spelled} of {other}', [str(value)], SETTINGS).correct
  assert NUMBER.match(f' it is {other} + 1 = {spelled}', [str(value)], SETTINGS).correct
  assert NUMBER.match(f' {spelled} of {other}', [str(value + 1)], SETTINGS).correct is False


@pytest.mark.parametrize(('matcher', 'window'), [(FIVE, 5), (TWENTY, 20), (FirstWords(10), 10)])
def test_the_answer_must_stand_among_the_first_words(matcher, window):
  filler = [f'w{i}' for i in range(30)]
  inside = ' '.join([*filler[:window - 1], 'Paris,', *filler])
  outside = ' '.join([*filler[:window], 'Paris', *filler])
  assert matcher.match(inside, ['Paris'], SETTINGS).correct
  assert not matcher.match(outside, ['Paris'], SETTINGS).correct
  # An answer of two words has to lie within the window as a whole.
  across = ' '.join([*filler[:window - 1], 'New', 'York'])
  assert not matcher.match(across, ['New York'], SETTINGS).correct


@pytest.mark.parametrize(('prediction', 'change', 'correct'), [
    (' in PARIS.', {}, True),
    (' in PARIS.', {'fold_case': False}, False),
    (' in par-is', {}, False),
    (' Saint-Paris', {}, True),
    (' Parisian', {}, False),
    (' Parisian', {'whole_words': False}, True),
    (' "Paris"', {'fold_punctuation': False}, True),
    (' Lutetia', {}, True),
    (' Lutetia', {'aliases': False}, False),
])
def test_what_the_paper_leaves_open_is_a_setting(prediction, change, correct):
  settings = EvaluationConfig(**change)
  assert FIVE.match(prediction, ['Paris', 'Lutetia'], settings).correct == correct


@pytest.mark.parametrize(('prediction', 'answer', 'correct'), [
    (' 2.8 million', '8', False),
    (' -8 degrees', '8', False),
    (' –8 degrees', '-8', True),
    (' It is 3.14', '14', False),
    (' It is 3.14.', '3.14', True),
    (' 10,605', '605', False),
    (' 1,8', '8', False),
    (' 3000 m', '3,000', True),
    (' 3,000 people', '3000', True),
    (' 14.0', '14', True),
    (' the 21st of May', '21', True),
    (' the 21 of May', '21st', True),
    (' on 14 May 2003', '14 May 2003', True),
    (' on 21.3.2018', '2018', True),
    (' in the 1980s', '1980', False),
    (' in the 1980s', '1980s', True),
    (' an A4 page', '4', False),
    (' covid-19', '19', True),
    (' 8', '18', False),
])
def test_numbers_among_words_are_compared_by_value(prediction, answer, correct):
  assert FIVE.match(prediction, [answer], SETTINGS).correct == correct


@hypothesis.given(st.integers(-10**9, 10**9), st.integers(-10**9, 10**9))
def test_a_number_contains_only_itself(value, other):
  correct = FIVE.match(f' it is {value:,} m', [str(other)], SETTINGS).correct
  assert correct == (value == other)
  assert FIVE.match(f' it is {value} m', [f'{value:,}'], SETTINGS).correct


def test_an_answer_of_symbols_is_looked_for_as_it_stands():
  assert FIVE.match(' the sign + here', ['+'], SETTINGS).correct
  assert not FIVE.match(' the sign here', ['+'], SETTINGS).correct


def test_calls_are_no_words():
  call = Call('QA', 'Where is the Louvre, of all places?', 'Paris, on the right bank')
  text = f' It is{DEFAULT_SYNTAX.linearise(call)} in the city of Paris'
  plain = DEFAULT_SYNTAX.remove(text, ['QA'])
  assert first_words(plain, 5) == 'It is in the city'
  assert not FIVE.match(plain, ['Paris'], SETTINGS).correct
  assert FirstWords(7).match(plain, ['Paris'], SETTINGS).correct


@hypothesis.given(st.text(), st.text())
def test_no_text_breaks_a_matcher(prediction, answer):
  for matcher in (FIVE, NUMBER):
    matcher.match(prediction, [answer], SETTINGS)


@pytest.mark.parametrize(('prediction', 'answer', 'correct'), [
    (' on May 5,2010', '2010', True),
    (' on May 5,2010', '5', True),
    (' it is 1,8 m', '8', False),
    (' ' + '1' * 5000, '1' * 5000, True),
    (' ' + '1' * 5000, '1' * 4999, False),
])
def test_numbers_among_words(prediction, answer, correct):
  assert FIVE.match(prediction, [answer], SETTINGS).correct == correct
