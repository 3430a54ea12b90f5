"""The paper's rules: the first number, or that after `=`; the first 5 or 20 words; calls apart."""

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
    (' nobody knows', None),
    ('', None),
])
def test_the_number_that_is_predicted(prediction, extracted):
  assert predicted_number(prediction) == extracted


@pytest.mark.parametrize(('prediction', 'answer', 'right'), [
    (' 51.', '51.0', True),
    (' $51', '51.0', True),
    (' 1,234 people', '1234', True),
    (' 0.33', '0.3333333', True),  # the calculator rounds to two decimals
    (' 0.34', '0.3333333', False),
    (' 5', '51', False),
    (' -5', '5', False),
    (' 9', '9 (apples)', True),  # as ASDiv writes its answers
    (' none', '0', False),
])
def test_numbers_are_compared_by_value(prediction, answer, right):
  assert NUMBER.judge(prediction, [answer], SETTINGS).correct == right


@hypothesis.given(st.integers(-10**9, 10**9), st.integers(-10**6, 10**6), st.booleans())
def test_any_number_is_read_back(value, other, comma):
  spelled = f'{value:,}' if comma else str(value)
  assert NUMBER.judge(f' {spelled} of {other}', [str(value)], SETTINGS).correct
  assert NUMBER.judge(f' it is {other} + 1 = {spelled}', [str(value)], SETTINGS).correct
  assert NUMBER.judge(f' {spelled} of {other}', [str(value + 1)], SETTINGS).correct is False


@pytest.mark.parametrize(('rule', 'window'), [(FIVE, 5), (TWENTY, 20), (FirstWords(10), 10)])
def test_the_answer_must_stand_among_the_first_words(rule, window):
  filler = [f'w{i}' for i in range(30)]
  inside = ' '.join([*filler[:window - 1], 'Paris,', *filler])
  outside = ' '.join([*filler[:window], 'Paris', *filler])
  assert rule.judge(inside, ['Paris'], SETTINGS).correct
  assert not rule.judge(outside, ['Paris'], SETTINGS).correct
  # An answer of two words has to lie within the window as a whole.
  across = ' '.join([*filler[:window - 1], 'New', 'York'])
  assert not rule.judge(across, ['New York'], SETTINGS).correct


@pytest.mark.parametrize(('prediction', 'change', 'right'), [
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
def test_what_the_paper_leaves_open_is_a_setting(prediction, change, right):
  settings = EvaluationConfig(**change)
  assert FIVE.judge(prediction, ['Paris', 'Lutetia'], settings).correct == right


def test_an_answer_of_symbols_is_looked_for_as_it_stands():
  assert FIVE.judge(' the sign + here', ['+'], SETTINGS).correct
  assert not FIVE.judge(' the sign here', ['+'], SETTINGS).correct


def test_calls_are_no_words():
  call = Call('QA', 'Where is the Louvre, of all places?', 'Paris, on the right bank')
  text = f' It is{DEFAULT_SYNTAX.linearise(call)} in the city of Paris'
  plain = DEFAULT_SYNTAX.remove(text, ['QA'])
  assert first_words(plain, 5) == 'It is in the city'
  assert not FIVE.judge(plain, ['Paris'], SETTINGS).correct
  assert FirstWords(7).judge(plain, ['Paris'], SETTINGS).correct


@hypothesis.given(st.text(), st.text())
def test_no_text_breaks_a_rule(prediction, answer):
  for rule in (FIVE, NUMBER):
    if rule is FIVE or predicted_number(answer) is not None:
      rule.judge(prediction, [answer], SETTINGS)
