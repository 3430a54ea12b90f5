"""The calendar tells the document's date, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.calendar import Calendar


def tell(date, argument=''):
  return Calendar()(argument, Context(date=date))


def test_example_of_the_paper():
  assert tell('2023-01-30') == 'Today is Monday, January 30, 2023.'


@given(st.dates())
def test_every_date_is_told_as_datetime_has_it(date):
  expected = f'Today is {date:%A}, {date:%B} {date.day}, {date.year}.'
  assert tell(date.isoformat()) == expected


@pytest.mark.parametrize('argument', ['', '  ', '""', "' '"])
def test_blank_arguments_are_none(argument):
  assert tell('2020-02-29', argument) == 'Today is Saturday, February 29, 2020.'


@given(st.text())
def test_any_argument_with_a_letter_is_refused(text):
  with pytest.raises(ToolError, match='no argument'):
    tell('2023-01-30', text + 'x' + text)


@pytest.mark.parametrize('date', [
  None, '', 'today', '2023-02-29', '20230130', '2023-W05-1', '2023-1-30', '2023-01-30T10:00',
])
def test_without_a_valid_date_there_is_no_result(date):
  with pytest.raises(ToolError, match='date'):
    tell(date)


@given(st.text())
def test_any_date_gives_a_sentence_or_a_tool_error(date):
  try:
    assert tell(date).startswith('Today is ')
  except ToolError as error:
    assert 'not a date' in str(error)
