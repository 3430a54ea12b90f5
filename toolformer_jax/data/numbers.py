"""Numbers in text: the one place that says what is read as one, and its value."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

# Commas only in groups of three digits, `1,234`; elsewhere they end a number. A minus counts where
# nothing that it could subtract from stands before it.
_NUMBER = re.compile(r'((?<![\w).])[-−])?\$?((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)')
_MAX_CHARS = 100  # longer ones are no numbers to calculate with


class Number(NamedTuple):
  """A number in a text.

  Attributes:
    start, end: where it stands, with sign and currency.
    digits: its digits as they stand, `1,234.50`.
    value: exact.
  """

  start: int
  end: int
  digits: str
  value: Fraction


def find_numbers(text: str) -> Iterator[Number]:
  """Yields the numbers of `text`, from left to right."""
  for match in _NUMBER.finditer(text):
    if len(match[2]) <= _MAX_CHARS:
      value = Fraction(match[2].replace(',', ''))
      yield Number(match.start(), match.end(), match[2], -value if match[1] else value)


def stands_alone(text: str, number: Number) -> bool:
  """Tells whether a number is no part of a word, a date, a version or an identifier."""
  before, after = text[:number.end - len(number.digits)][-1:], text[number.end:number.end + 2]
  return not (before.isalnum() or before in ('_', '.', ',') and before
              or after[:1].isalnum() or after[:1] == '_'
              or after[:1] in ('.', ',') and after[1:].isdigit())
