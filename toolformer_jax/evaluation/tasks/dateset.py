"""Dateset: questions about dates, made from seven templates (paper, 4.2.5 and appendix D).

The paper draws 500 current dates, and for each of them a past and a future date within four years.
The templates give more questions for these than the paper has, so a sample of its size is drawn.
Only the calendar tells the current date.
"""

import datetime
import functools
import random
from collections.abc import Iterator
from datetime import date as Date

import holidays
from dateutil.relativedelta import relativedelta

from toolformer_jax.evaluation.answer_matching import FirstWords
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder
from toolformer_jax.evaluation.task import Question, QuestionTask
from toolformer_jax.evaluation.tasks.questions import prompt

# Questions of each template (paper, Table 11).
SIZES = {1: 400, 2: 800, 3: 800, 4: 400, 5: 4000, 6: 1800, 7: 1200}
_DATES, _RANGE_DAYS = 500, 4 * 365
# The paper does not state the range of the current dates.
_FIRST, _LAST = Date(2010, 1, 1), Date(2022, 12, 31)
_NEAR = {-2: 'the day before yesterday', -1: 'yesterday', 0: 'today', 1: 'tomorrow',
         2: 'the day after tomorrow'}
# Not from the standard library, whose names follow the locale.
_WEEKDAYS = ('Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday')
_MONTHS = ('January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September',
           'October', 'November', 'December')
# US federal holidays as the questions name them, and other names in the package `holidays`.
_HOLIDAYS = ('New Year\'s Day', 'Martin Luther King Jr. Day', 'Washington\'s Birthday',
             'Memorial Day', 'Independence Day', 'Labor Day', 'Columbus Day', 'Veterans Day',
             'Thanksgiving', 'Christmas Day', 'Juneteenth')
_OTHER_NAMES = {'Thanksgiving': 'Thanksgiving Day',
                'Juneteenth': 'Juneteenth National Independence Day'}
_PARTS = ('day of the week', 'day of the month', 'month', 'year')

QA = tuple[str, tuple[str, ...]]  # a question and its answers


def read(folder: TaskFolder, config: EvaluationConfig) -> list[Question]:
  """Returns all questions in random order; they need no files."""
  rng = random.Random(config.dateset_seed)
  filled: dict[int, list[tuple[Date, QA]]] = {template: [] for template in SIZES}
  for _ in range(_DATES):
    today = Date.fromordinal(rng.randint(_FIRST.toordinal(), _LAST.toordinal()))
    past, future = (_plus_days(today, sign * rng.randint(1, _RANGE_DAYS)) for sign in (-1, 1))
    for template, qa in fill(today, past, future):
      filled[template].append((today, qa))
  sampled = [(template, today, qa) for template, size in SIZES.items()
             for today, qa in rng.sample(filled[template], size)]
  rng.shuffle(sampled)
  return [Question(f'dateset-{i:04}', prompt(question), answers, str(template), today.isoformat())
          for i, (template, today, (question, answers)) in enumerate(sampled)]


def fill(today: Date, past: Date, future: Date) -> Iterator[tuple[int, QA]]:
  """Yields the number of each template that can be filled, with its question and answers."""
  for number, template in enumerate((
      _days_between, _ago, _in_days, _weekday, _near, _holiday, _to_holiday), 1):
    for qa in template(today, past, future):
      yield number, qa


def _days_between(today: Date, past: Date, future: Date) -> Iterator[QA]:
  yield f'How many days ago was {_spelled(past)}?', _count((today - past).days)
  yield f'How many days are there until {_spelled(future)}?', _count((future - today).days)


def _ago(today: Date, past: Date, future: Date) -> Iterator[QA]:
  for unit, count in _units(past, today).items():
    for part in _PARTS if count else ():
      then = today - relativedelta(**{unit: count})
      yield f'What {part} was it {count} {unit} ago?', _part(then, part)


def _in_days(today: Date, past: Date, future: Date) -> Iterator[QA]:
  for part in _PARTS:
    days = (future - today).days
    yield f'What {part} will it be in {days} days?', _part(future, part)


def _weekday(today: Date, past: Date, future: Date) -> Iterator[QA]:
  yield f'What day of the week was it on {_spelled(past)}?', _part(past, _PARTS[0])
  yield f'What day of the week is it on {_spelled(future)}?', _part(future, _PARTS[0])


def _near(today: Date, past: Date, future: Date) -> Iterator[QA]:
  for days, name in _NEAR.items():
    for part in _PARTS:
      verb = 'was' if days < 0 else 'is'
      yield f'What {part} {verb} it {name}?', _part(_plus_days(today, days), part)


def _holiday(today: Date, past: Date, future: Date) -> Iterator[QA]:
  for name, day in federal_holidays(today.year).items():
    for part in _PARTS[:3]:
      yield f'What {part} {"was" if day < today else "is"} {name} this year?', _part(day, part)


def _to_holiday(today: Date, past: Date, future: Date) -> Iterator[QA]:
  for name, day in federal_holidays(today.year).items():
    verb = 'ago was' if day < today else 'are there until'
    for unit, count in _units(min(day, today), max(day, today)).items():
      yield f'How many {unit} {verb} {name} this year?', _count(count)


@functools.cache
def federal_holidays(year: int) -> dict[str, Date]:
  """Returns the holidays of US federal law (5 U.S.C. 6103) on their legal dates."""
  days = {name: day for day, name in holidays.US(years=year, observed=False).items()}
  names = {name: _OTHER_NAMES.get(name, name) for name in _HOLIDAYS}
  return {name: days[other] for name, other in names.items() if other in days}


def _plus_days(date: Date, days: int) -> Date:
  return date + datetime.timedelta(days)


def _spelled(date: Date) -> str:
  return f'{_MONTHS[date.month - 1]} {date.day}, {date.year}'


def _units(earlier: Date, later: Date) -> dict[str, int]:
  """Returns how many whole days, weeks, months and years lie between two dates."""
  days, between = (later - earlier).days, relativedelta(later, earlier)
  months = 12 * between.years + between.months
  return {'days': days, 'weeks': days // 7, 'months': months, 'years': months // 12}


def _part(date: Date, part: str) -> tuple[str, ...]:
  if part == 'day of the month':
    return str(date.day), f'{date.day}{_ending(date.day)}'
  return {'day of the week': (_WEEKDAYS[date.weekday()],), 'month': (_MONTHS[date.month - 1],),
          'year': (str(date.year),)}[part]


def _ending(day: int) -> str:
  return 'th' if day in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')


def _count(number: int) -> tuple[str, ...]:
  return (str(number), f'{number:,}') if number >= 1000 else (str(number),)


DATESET = QuestionTask(
    'dateset', 'Dateset', read, '', FirstWords(5),
    groups=tuple((str(i), f'Dateset, template {i}') for i in SIZES),
    prompt=prompt('...'))
