"""Dateset: sizes as in the paper, and answers that Python's datetime gives as well."""

import datetime
import itertools
import pathlib
import re
from collections import Counter

import holidays
import pytest
from dateutil.relativedelta import relativedelta

from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.tasks import load_examples
from toolformer_jax.evaluation.tasks.dateset import DATESET

NEAR = {'the day before yesterday': -2, 'yesterday': -1, 'today': 0, 'tomorrow': 1,
        'the day after tomorrow': 2}
FORMATS = {'day of the week': '%A', 'day of the month': '%d', 'month': '%B', 'year': '%Y'}
NAMES = {'Thanksgiving': 'Thanksgiving Day', 'Juneteenth': 'Juneteenth National Independence Day'}


@pytest.fixture(scope='module')
def questions():
  return [load_examples(DATESET, pathlib.Path('nowhere'), EvaluationConfig(dateset_seed=seed))
          for seed in (0, 1)]


def test_sizes_are_those_of_the_paper(questions):
  for some in questions:
    assert Counter(question.group for question in some) == {
        '1': 400, '2': 800, '3': 800, '4': 400, '5': 4000, '6': 1800, '7': 1200}
  # No current date has a part of its own: 500 are drawn.
  assert len({question.date for question in questions[0]}) > 450


def test_a_seed_gives_the_same_questions_and_another_one_others(questions):
  again = load_examples(DATESET, pathlib.Path('nowhere'), EvaluationConfig())
  assert again == questions[0] != questions[1]


def test_answers_agree_with_datetime_on_ten_thousand_questions(questions):
  asked = list(itertools.islice(itertools.chain(*questions), 10_000))
  assert len(asked) == 10_000
  for question in asked:
    assert question.answers[0] == expected(question.prompt, question.date), question


def expected(prompt: str, today: str) -> str:
  """Answers by the standard library, dateutil and the package holidays alone."""
  text = prompt.removeprefix('Answer the following question: ')
  today = datetime.date.fromisoformat(today)
  if found := re.fullmatch(r'How many (\w+) (?:ago was|are there until) (.+)\?', text):
    then, verb = day_called(found[2], today), 'ago was' in text
    assert verb == (then < today)
    return str(units_between(*sorted([today, then]), found[1]))
  part, rest = re.fullmatch(r'What (day of the \w+|month|year) (.+)\?', text).groups()
  if found := re.fullmatch(r'was it (\d+) (\w+) ago', rest):
    then = today - relativedelta(**{found[2]: int(found[1])})
  elif found := re.fullmatch(r'will it be in (\d+) days', rest):
    then = today + datetime.timedelta(int(found[1]))
  elif found := re.fullmatch(r'(is|was) it (?:on )?(.+)', rest):
    then = day_called(found[2], today)
    assert (found[1] == 'was') == (then < today)
  else:
    verb, name = re.fullmatch(r'(is|was) (.+)', rest).groups()
    then = day_called(name, today)
    assert (verb == 'was') == (then < today)
  return then.strftime(FORMATS[part]).lstrip('0')


def day_called(name: str, today: datetime.date) -> datetime.date:
  if name in NEAR:
    return today + datetime.timedelta(NEAR[name])
  if not name.endswith(' this year'):
    return datetime.datetime.strptime(name, '%B %d, %Y').date()
  name = name.removesuffix(' this year')
  found, = holidays.US(years=today.year, observed=False).get_named(
      NAMES.get(name, name), lookup='exact')
  return found


def units_between(earlier: datetime.date, later: datetime.date, unit: str) -> int:
  days, apart = (later - earlier).days, relativedelta(later, earlier)
  return {'days': days, 'weeks': days // 7, 'months': apart.years * 12 + apart.months,
          'years': apart.years}[unit]
