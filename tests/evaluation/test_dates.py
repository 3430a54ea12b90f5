"""Our calendar against Python's, dateutil's and the package holidays."""

import datetime

import holidays
import hypothesis
from dateutil.relativedelta import relativedelta
from hypothesis import strategies as st

from toolformer_jax.evaluation import dates
from toolformer_jax.evaluation.dates import Date

DAYS = st.dates(datetime.date(1, 1, 1), datetime.date(9999, 12, 31))


def ours(day: datetime.date) -> Date:
  return Date(day.year, day.month, day.day)


@hypothesis.given(DAYS)
def test_days_agree_with_datetime(day):
  assert ours(day).ordinal == day.toordinal()
  assert dates.from_ordinal(day.toordinal()) == ours(day)
  assert dates.WEEKDAYS.index(ours(day).weekday) == day.weekday()
  assert ours(day).iso == day.isoformat()


def test_every_day_of_four_centuries_follows_the_one_before():
  day, python = Date(1900, 1, 1), datetime.date(1900, 1, 1)
  for _ in range(146_097):
    day, python = day.plus_days(1), python + datetime.timedelta(1)
    if python.day == 1:
      assert day == ours(python)
  assert day == Date(2300, 1, 1)


@hypothesis.given(st.dates(datetime.date(100, 1, 1), datetime.date(9000, 1, 1)),
                  st.integers(-1000, 1000))
def test_months_agree_with_dateutil(day, months):
  assert ours(day).plus_months(months) == ours(day + relativedelta(months=months))


@hypothesis.given(DAYS, DAYS)
def test_whole_months_are_as_many_as_can_be_added(one, other):
  earlier, later = sorted([ours(one), ours(other)])
  months = dates.whole_months(earlier, later)
  assert earlier.plus_months(months) <= later < earlier.plus_months(months + 1)


def test_federal_holidays_agree_with_the_package_holidays():
  for year in range(1986, 2051):
    theirs = holidays.US(years=year, observed=False)
    assert {ours(day) for day in theirs} == set(dates.federal_holidays(year).values())
    for name, day in dates.federal_holidays(year).items():
      python = datetime.date(*day)
      assert name.split()[0].rstrip("'s") in theirs[python]
