"""What is read as a number in text, and its value."""

from fractions import Fraction

import pytest

from toolformer_jax.data.numbers import find_numbers, number_at, parse_number, stands_alone


@pytest.mark.parametrize(('text', 'values'), [
  ('1,234.50 and 12,34 and .5', ['1234.5', '12', '34', '0.5']),
  ('-3, 5-3, (-3) and x−3', ['-3', '5', '3', '-3', '3']),
  ('$5, -$5, £1,000 and -€7', ['5', '-5', '1000', '-7']),
  ('9' * 101 + ' and 7', ['7']),
  ('none', []),
])
def test_numbers_in_a_text(text, values):
  found = list(find_numbers(text))
  assert [number.value for number in found] == list(map(Fraction, values))
  assert all(text[number.digits_start:number.end] == number.digits for number in found)


@pytest.mark.parametrize(('text', 'value'), [
  ('7', 7), (' -1,234.5 ', '-1234.5'), ('$5', 5), ('.5', '0.5'), ('7 days', None), ('', None),
  ('1e5', None), ('3/4', None), ('the 7th', None), ('9' * 101, None)])
def test_a_text_that_is_a_number(text, value):
  assert parse_number(text) == (None if value is None else Fraction(value))


def test_the_number_at_a_place():
  text = 'It is  $-5, or 7.'
  assert number_at(text, 5) is None  # a currency before the sign is not read
  assert number_at(text, text.index('7') - 1).value == 7
  assert number_at('5-3', 1) is None and number_at('5-3', 2).value == 3  # no sign after a number
  assert number_at('5', 1) is None


@pytest.mark.parametrize(('text', 'alone'), [
  ('2018-03-21', [True, True, True]), ('21/3/2018', [True, True, True]), ('a 5.', [True]),
  ('5, 6', [True, True]), ('x5', [False]), ('5x', [False]), ('id_5', [False]), ('5_', [False]),
  ('1.2.3', [False, False]), ('12,34', [False, False]), ('$5', [True])])
def test_parts_of_words_and_versions_do_not_stand_alone(text, alone):
  assert [stands_alone(text, number) for number in find_numbers(text)] == alone
