"""The Gregorian calendar, reckoned exactly: what Dateset's answers are made of."""

import functools
from typing import NamedTuple

WEEKDAYS = ('Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday')
MONTHS = ('January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September',
          'October', 'November', 'December')
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CYCLE_DAYS, _CYCLE_YEARS = 146_097, 400  # after so many days the calendar repeats itself
JUNETEENTH_SINCE = 2021


class Date(NamedTuple):
  """A day of the calendar; months and days count from 1."""

  year: int
  month: int
  day: int

  def __str__(self) -> str:
    return f'{MONTHS[self.month - 1]} {self.day}, {self.year}'

  @property
  def iso(self) -> str:
    """YYYY-MM-DD."""
    return f'{self.year:04}-{self.month:02}-{self.day:02}'

  @property
  def ordinal(self) -> int:
    """Its number among all days; January 1 of the year 1 has 1."""
    months = sum(month_days(self.year, month) for month in range(1, self.month))
    return _days_before(self.year) + months + self.day

  @property
  def weekday(self) -> str:
    """Its name in the week."""
    return WEEKDAYS[(self.ordinal - 1) % 7]  # January 1 of the year 1 was a Monday

  def plus_days(self, days: int) -> 'Date':
    """Returns the date so many days later."""
    return from_ordinal(self.ordinal + days)

  def plus_months(self, months: int) -> 'Date':
    """Returns the same day so many months later, or the last one of a month without it."""
    year, month = divmod(self.year * 12 + self.month - 1 + months, 12)
    return Date(year, month + 1, min(self.day, month_days(year, month + 1)))


def month_days(year: int, month: int) -> int:
  """Returns how many days a month has."""
  leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
  return 29 if month == 2 and leap else _DAYS[month - 1]


def from_ordinal(ordinal: int) -> Date:
  """Returns the day with this number."""
  year = (ordinal - 1) * _CYCLE_YEARS // _CYCLE_DAYS + 1
  while _days_before(year) >= ordinal:
    year -= 1
  while _days_before(year + 1) < ordinal:
    year += 1
  month, day = 1, ordinal - _days_before(year)
  while day > month_days(year, month):
    day -= month_days(year, month)
    month += 1
  return Date(year, month, day)


def whole_months(earlier: Date, later: Date) -> int:
  """Returns how many whole months lie between two dates: as many as can be added to `earlier`."""
  months = (later.year - earlier.year) * 12 + later.month - earlier.month
  return months - (earlier.plus_months(months) > later)


@functools.cache
def federal_holidays(year: int) -> dict[str, Date]:
  """Returns the holidays of US federal law (5 U.S.C. 6103) on the days that it names."""
  holidays = {
      'New Year\'s Day': Date(year, 1, 1),
      'Martin Luther King Jr. Day': _nth(year, 1, 'Monday', 3),
      'Washington\'s Birthday': _nth(year, 2, 'Monday', 3),
      'Memorial Day': _nth(year, 5, 'Monday', -1),
      'Independence Day': Date(year, 7, 4),
      'Labor Day': _nth(year, 9, 'Monday', 1),
      'Columbus Day': _nth(year, 10, 'Monday', 2),
      'Veterans Day': Date(year, 11, 11),
      'Thanksgiving': _nth(year, 11, 'Thursday', 4),
      'Christmas Day': Date(year, 12, 25)}
  if year >= JUNETEENTH_SINCE:
    holidays['Juneteenth'] = Date(year, 6, 19)
  return holidays


def _nth(year: int, month: int, weekday: str, nth: int) -> Date:
  """Returns the nth of these weekdays in a month; the last one for -1."""
  days = [Date(year, month, day) for day in range(1, month_days(year, month) + 1)]
  found = [day for day in days if day.weekday == weekday]
  return found[nth - 1 if nth > 0 else nth]


def _days_before(year: int) -> int:
  """Returns how many days lie before January 1 of a year."""
  past = year - 1
  return past * 365 + past // 4 - past // 100 + past // 400
