"""Dates: of documents, and of those that people type."""

import datetime
import re
from typing import Any

_DATES_IN_URLS = (
  re.compile(r'/((?:19|20)\d\d)/(\d\d?)/(\d\d?)(?!\d)'),
  re.compile(r'(?<!\d)((?:19|20)\d\d)-(\d\d)-(\d\d)(?!\d)'),
  re.compile(r'/((?:19|20)\d\d)(\d\d)(\d\d)(?=[/.?#]|$)'),
)
_ISO_DATE = re.compile(r'(\d{4})-(\d\d)-(\d\d)(?!\d)')


def date_in_url(url: str | None) -> str | None:
  """Returns the date in `url` as YYYY-MM-DD, or None: the paper's heuristic for the calendar.

  It may be spelt /2018/3/21, 2018-03-21 or /20180321, in the years 1900 to 2099.
  """
  for pattern in _DATES_IN_URLS:
    for match in pattern.finditer(url or ''):
      if date := _date(match):
        return date
  return None


def iso_date(value: Any) -> str | None:
  """Returns the date with which a text such as '2018-03-21T10:00:00Z' begins, or None."""
  match = _ISO_DATE.match(value.strip()) if isinstance(value, str) else None
  return _date(match) if match else None


def parse_iso_date(text: str) -> datetime.date | None:
  """Returns the date that `text` is, YYYY-MM-DD; None if it is none."""
  try:
    date = datetime.date.fromisoformat(text)
  except ValueError:
    return None
  # fromisoformat also reads 20230130 and dates of weeks.
  return date if date.isoformat() == text else None


def _date(match: re.Match[str]) -> str | None:
  try:
    return datetime.date(*map(int, match.groups())).isoformat()
  except ValueError:
    return None
