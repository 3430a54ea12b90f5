"""Numbers in text: the one parser that says what is read as a number, and its value."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

# Commas separate groups of three digits, as in 1,234; elsewhere they end a number. A minus belongs
# to a number unless something that it could subtract from stands before it.
_NUMBER = re.compile(
    r'((?<![\w).])[-−–])?[$£€]?((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)')
_BEFORE_NUMBER = re.compile(r'\s*')
_MAX_CHARS = 100  # longer ones are no numbers to calculate with


class Number(NamedTuple):
  """A number in a text.

  Attributes:
    start, end: its characters are text[start:end], with sign and currency.
    digits: its digits as they are written, such as `1,234.50`.
    value: its exact value.
  """

  start: int
  end: int
  digits: str
  value: Fraction

  @property
  def digits_start(self) -> int:
    """Index of the first digit, or of the decimal point that comes first."""
    return self.end - len(self.digits)


def find_numbers(text: str) -> Iterator[Number]:
  """Yields the numbers of `text`, from left to right."""
  for match in _NUMBER.finditer(text):
    if len(match[2]) <= _MAX_CHARS:
      yield _number(match)


def number_at(text: str, start: int) -> Number | None:
  """Returns the number that begins at text[start:], after whitespace at most; None without one."""
  space = _BEFORE_NUMBER.match(text, start)
  match = space and _NUMBER.match(text, space.end())
  return _number(match) if match and len(match[2]) <= _MAX_CHARS else None


def parse_number(text: str) -> Fraction | None:
  """Returns the value of a text that is a number and nothing else; None if it is not."""
  number = number_at(text, 0)
  return number.value if number and not text[number.end:].strip() else None


def stands_alone(text: str, number: Number) -> bool:
  """Tells whether a number is not a part of a word, an identifier or a version such as 1.2.3.

  The parts of a date such as 2018-03-21 or 21/3/2018 stand alone.
  """
  before, after = text[:number.digits_start][-1:], text[number.end:number.end + 2]
  return not (before.isalnum() or before and before in '_.,'
              or after[:1].isalnum() or after[:1] == '_'
              or after[:1] in ('.', ',') and after[1:].isdigit())


def _number(match: re.Match[str]) -> Number:
  value = Fraction(match[2].replace(',', ''))
  return Number(match.start(), match.end(), match[2], -value if match[1] else value)
