"""Dates: of documents, and of those that people type."""

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from dateutil import parser

_FIRST_YEAR = 1991  # of the first web page
_MONTHS = {name: number for number, names in enumerate(
    ('jan january', 'feb february', 'mar march', 'apr april', 'may', 'jun june', 'jul july',
     'aug august', 'sep sept september', 'oct october', 'nov november', 'dec december'), 1)
    for name in names.split()}
# A date that is the beginning of a part of the path; a title or the end of a file's name follows.
_SEGMENTS = (
  re.compile(r'(\d{4})-(\d\d?)-(\d\d?)(?![\d-]\d)'),
  re.compile(r'(\d{4})_(\d\d?)_(\d\d?)(?![\d_]\d)'),
  re.compile(r'(\d{4})(\d\d)(\d\d)(?=[.]|$)'),
)
_YEAR = re.compile(r'\d{4}')
_NUMBER = re.compile(r'\d{1,2}')
_DAY = re.compile(r'(\d{1,2})(?:\.\w+)?')  # a title that begins with a number is no day
_EPOCH = re.compile(r'\d{9,13}(?:\.\d+)?')
_ISO_DATE = re.compile(r'(\d{4})-(\d\d)-(\d\d)(?!\d)')
_YEAR_FIRST = re.compile(r'\s*(\d{4})(?:([-/.])(\d\d?)\2|(\d\d))(\d\d?)(?!\d)')
_SIZES = frozenset({'crop', 'cropped', 'fit', 'height', 'resize', 'resized', 'scale', 'size',
                    'thumb', 'thumbnail', 'thumbs', 'width'})
_VERSIONED = frozenset({'api', 'apis', 'rest'})  # what follows is a version of an interface
# Fields with the date of publication; then fields with the date of the crawl, or with a date of
# unknown meaning. Names are in lower case, without punctuation.
_PUBLISHED = ('datepublished', 'datepublish', 'publisheddate', 'publishdate', 'publicationdate',
              'publishedat', 'publishedtime', 'publishtime', 'published', 'pubdate', 'pubtime',
              'articlepublishedtime', 'postdate', 'dateposted')
_CRAWLED = ('date', 'datetime', 'timestamp', 'created', 'createdat', 'createddate', 'datecreated',
            'creationdate', 'warcdate', 'crawldate', 'crawltimestamp', 'datecrawled',
            'datedownload', 'downloaddate', 'fetchtime', 'fetchedat', 'time')
_CRAWLS = frozenset({'timestamp', 'warcdate', 'crawldate', 'crawltimestamp', 'datecrawled',
                     'datedownload', 'downloaddate', 'fetchtime', 'fetchedat'})
# What programs write where they know no date.
_PLACEHOLDERS = frozenset({'0001-01-01', '1900-01-01', '1970-01-01'})
_NAMES_OF_URLS = ('url', 'uri', 'sourceurl', 'pageurl', 'canonicalurl', 'documenturl', 'link',
                  'warctargeturi')
_METADATA = ('meta', 'metadata')
_MAX_CHARS = 64  # of a date that somebody wrote


def document_url(fields: Mapping[str, Any]) -> str | None:
  """Returns the address of a document of a corpus, or None."""
  known = _normalized(fields)
  return next((value for name in _NAMES_OF_URLS
               if isinstance(value := known.get(name), str) and value), None)


def document_date(fields: Mapping[str, Any]) -> str | None:
  """Returns the date of a document of a corpus as YYYY-MM-DD, or None.

  It is the field that tells when the document was published; or else the date in its address
  (the paper's heuristic for the calendar); or else the field that tells when it was crawled. Fields
  of `metadata` or `meta` count too. Dates later than the crawl or than today, and those that stand
  for none, such as 1970-01-01, are ignored.
  """
  known, today = _normalized(fields), datetime.date.today().isoformat()
  crawl = _first_date((known.get(name) for name in _CRAWLED if name in _CRAWLS), today)
  crawled = crawl or _first_date((known.get(name) for name in _CRAWLED), today)
  return (_first_date((known.get(name) for name in _PUBLISHED), crawl or today)
          or date_in_url(document_url(fields), latest=crawled) or crawled)


def date_in_url(url: str | None, latest: str | None = None) -> str | None:
  """Returns the date in the path of `url` as YYYY-MM-DD, or None.

  It is spelt /2018/3/21, /2018/mar/21, or begins a part of the path: /2018-03-21-title,
  /2018_03_21.html, /20180321. Queries, other places in titles, sizes of images and versions of
  interfaces (/api/2018-03-21) are not read.

  Args:
    url: the address.
    latest: YYYY-MM-DD; a later date is no date of the document. By default today.
  """
  try:
    path = urlsplit(url or '').path
  except ValueError:  # not an address
    return None
  latest = latest or datetime.date.today().isoformat()
  segments = path.split('/')[1:]
  for i in range(len(segments)):
    date = _date_of_segments(segments, i)
    if date and f'{_FIRST_YEAR}' <= date <= latest:
      return date
  return None


def leading_iso_date(value: Any) -> str | None:
  """Returns the date with which a text such as '2018-03-21T10:00:00Z' begins, or None."""
  match = _ISO_DATE.match(value.strip()) if isinstance(value, str) else None
  return _date(*match.groups()) if match else None


def written_date(value: Any) -> str | None:
  """Returns the date that a value states in any usual spelling as YYYY-MM-DD, or None.

  Numbers are seconds or milliseconds since 1970 (Unix time). None where year, month or day is
  missing, or where day and month could be taken for each other.
  """
  if isinstance(value, datetime.date):  # a datetime is one
    return value.isoformat()[:10]
  if isinstance(value, int | float) and not isinstance(value, bool):
    value = f'{value:.0f}'
  if not isinstance(value, str) or len(value) > _MAX_CHARS:
    return None
  if _EPOCH.fullmatch(value.strip()):
    return _of_epoch(float(value))
  if match := _YEAR_FIRST.match(value):
    return _date(match[1], match[3] or match[4], match[5])
  # What the text does not state comes from the default, and differs.
  readings = {_parsed(value, default, dayfirst)
              for default in (datetime.datetime(2000, 1, 1), datetime.datetime(2001, 2, 2))
              for dayfirst in (False, True)}
  return readings.pop() if len(readings) == 1 else None


def parse_iso_date(text: str) -> datetime.date | None:
  """Returns the date that `text` is, YYYY-MM-DD; None if it is none."""
  try:
    date = datetime.date.fromisoformat(text)
  except ValueError:
    return None
  # fromisoformat also reads 20230130 and dates of weeks.
  return date if date.isoformat() == text else None


def _date_of_segments(segments: list[str], i: int) -> str | None:
  """Returns the date that begins with the i-th part of a path."""
  before = {part.lower() for part in segments[max(i - 2, 0):i]}
  for pattern in _SEGMENTS:
    if (match := pattern.match(segments[i])) and not _VERSIONED & before:
      return _date(*match.groups())
  if len(segments) < i + 3 or _SIZES & before:
    return None
  year, month, day = segments[i:i + 3]
  month = str(_MONTHS.get(month.lower(), month))
  if not _YEAR.fullmatch(year) or not _NUMBER.fullmatch(month):
    return None
  match = _DAY.fullmatch(day)
  return _date(year, month, match[1]) if match else None


def _normalized(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields, and those of the metadata, by names that do not depend on the spelling."""
  known = {}
  for name in (*_METADATA, None):
    group = fields if name is None else fields.get(name)
    if isinstance(group, Mapping):
      known.update({re.sub('[^a-z0-9]', '', str(key).lower()): value
                    for key, value in group.items() if value is not None})
  return known


def _first_date(values: Iterable[Any], latest: str) -> str | None:
  """Returns the first date that is not later than `latest`, and no placeholder."""
  return next((date for date in map(written_date, values)
               if date and date <= latest and date not in _PLACEHOLDERS), None)


def _of_epoch(seconds: float) -> str | None:
  """Returns the date of a Unix time in seconds or milliseconds; None before the first web page."""
  seconds = seconds / 1000 if seconds >= 1e11 else seconds
  date = datetime.datetime.fromtimestamp(seconds, datetime.UTC).date()
  return date.isoformat() if date.year >= _FIRST_YEAR else None


def _parsed(text: str, default: datetime.datetime, dayfirst: bool) -> str | None:
  try:
    return parser.parse(text, default=default, dayfirst=dayfirst, ignoretz=True).date().isoformat()
  except (ValueError, OverflowError):
    return None


def _date(year: str, month: str, day: str) -> str | None:
  try:
    return datetime.date(int(year), int(month), int(day)).isoformat()
  except ValueError:
    return None
