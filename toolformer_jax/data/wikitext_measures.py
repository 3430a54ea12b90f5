"""The templates of Wikipedia for measures, money and approximate years, as a reader sees them.

Conversions are left out: a measure or a sum is given as its source states it.
"""

import re
from collections.abc import Sequence

_CURRENCIES = {
  'a$': 'A$', 'aud': 'A$', 'brl': 'R$', 'cad': 'C$', 'cny': 'CN¥', 'eur': '€', 'gbp': '£',
  'hkd': 'HK$', 'indian rupee': '₹', 'indian rupees': '₹', 'inr': '₹', 'inrconvert': '₹',
  'jpy': 'JP¥', 'krw': '₩', 'nzd': 'NZ$', 'php': '₱', 'rupee': '₹', 'us$': 'US$', 'usd': 'US$',
  '$': '$', '¥': '¥', '₹': '₹',
}
_SCALES = {
  'b': 'billion', 'c': 'crore', 'k': 'thousand', 'l': 'lakh', 'lc': 'lakh crore', 'm': 'million',
  't': 'trillion', 'tc': 'thousand crore',
}
_YEAR = re.compile(r'(?:1[0-9]|20)\d\d')

# Before a year, and between two.
_ABOUT = {
  'c.': ('c. ', ' – c. '), 'ca': ('c. ', ' – c. '), 'ca.': ('c. ', ' – c. '),
  'circa': ('c. ', ' – c. '), 'fl': ('fl. ', '–'), 'fl.': ('fl. ', '–'), 'floruit': ('fl. ', '–'),
  'r.': ('r. ', '–'), 'reign': ('r. ', '–'),
}

_RANGES = {
  'to': ' to ', '-': '–', '–': '–', 'to(-)': '–', 'and': ' and ', 'and(-)': ' and ', '&': ' and ',
  'or': ' or ', 'or(-)': ' or ', 'x': ' × ', '×': ' × ', 'by': ' by ', 'xx': ' × ', '+/-': ' ± ',
  '±': ' ± ', 'to about': ' to about ', 'upto': ' up to ',
}
_UNITS = {
  'C': '°C', 'F': '°F', 'C-change': '°C', 'F-change': '°F', 'K-change': 'K', 'acre': 'acres',
  'foot': 'ft', 'feet': 'ft', 'impgal': 'imp gal', 'inch': 'in', 'inches': 'in', 'kg-m': 'kg⋅m',
  'kph': 'km/h', 'LT': 'long tons', 'metre': 'metres', 'mile': 'miles', 'pound': 'pounds',
  'sqft': 'sq ft', 'sqin': 'sq in', 'sqkm': 'km²', 'sqm': 'm²', 'sqmi': 'sq mi', 'sqyd': 'sq yd',
  'cuft': 'cu ft', 'cumi': 'cu mi', 'cuyd': 'cu yd', 'cuin': 'cu in', 'ST': 'short tons',
  't': 'tonnes', 'USgal': 'US gal', 'usgal': 'US gal',
}
_SINGULAR = re.compile(r'(?<=acre|mile|etre|onne|ound)s$|(?<=ton)s$')
_MULTIPLES = {'3': 'thousand', '6': 'million', '9': 'billion', '12': 'trillion'}
_SYMBOL = re.compile(
    r'(?:e(?P<power>\d+))?(?P<unit>[A-Za-zµμ°Ω]+(?:-change|-m)?)(?P<exponent>[23]?)')
_EXPONENTS = {'': '', '2': '²', '3': '³'}
_NUMBER = re.compile(r'[-+−]?[\d,]*\.?\d+(?:/\d+)?')
# Other displays show the converted measure, or a part of it.
_DISPLAYS = frozenset({'', 'b', 'br', 'comma', 'or', 'semicolon', 'slash', 'sqbr', 'table', 'x'})


def money(name: str, arguments: Sequence[str], named: dict[str, str]) -> str | None:
  """Returns a sum of money; None if `name` is no currency, or the sum is not understood.

  A year behind the sum is that of a conversion.
  """
  symbol = _CURRENCIES.get(name)
  amount, scale = [*arguments, '', ''][:2]
  if symbol is None:
    return None
  if not scale or _YEAR.fullmatch(scale):
    return symbol + amount
  return f'{symbol}{amount} {_SCALES[scale]}' if name == 'inrconvert' and scale in _SCALES else None


def about(name: str, arguments: Sequence[str]) -> str | None:
  """Returns approximate years, or years of activity; None if `name` is no such template."""
  if name not in _ABOUT:
    return None
  prefix, separator = _ABOUT[name]
  return (prefix + separator.join(filter(None, arguments))).strip()


def convert(arguments: Sequence[str], named: dict[str, str]) -> str | None:
  """Returns a measure in the unit that its source states, without the conversion."""
  if named.get('disp', '') not in _DISPLAYS:
    return None
  rest, text = list(arguments), ''
  while len(rest) >= 2 and rest[1] in _RANGES:
    text += rest[0] + _RANGES[rest[1]]
    rest = rest[2:]
  if len(rest) < 2:
    return None
  if (measure := _measure(rest[0], rest[1], named.get('adj') == 'on')) is None:
    return None
  text += measure
  rest = rest[2:]
  # A measure of two units, such as 6 ft 8 in. A number at the end is a number of digits.
  while len(rest) >= 2 and _NUMBER.fullmatch(rest[0]) and not _NUMBER.fullmatch(rest[1]):
    if (measure := _measure(rest[0], rest[1], False)) is None:
      return None
    text += ' ' + measure
    rest = rest[2:]
  return text


def _measure(number: str, code: str, is_adjective: bool) -> str | None:
  """Returns a number with its unit; None if the code of the unit is not understood."""
  multiple, parts = '', []
  for place, part in enumerate(code.split('/')):
    match = _SYMBOL.fullmatch(part)
    if not match and (place or part):
      return None
    if match and match['power']:
      if place or match['power'] not in _MULTIPLES:
        return None
      multiple = _MULTIPLES[match['power']]
    parts.append(_unit(match['unit'], match['exponent'], is_adjective) if match else '')
  unit = '/'.join(parts)
  if number == '1' and not multiple:
    unit = _SINGULAR.sub('', unit)
  space = '-' if is_adjective else ' '
  return space.join(part for part in (number, multiple, unit) if part).replace(f'{space}/', '/')


def _unit(name: str, exponent: str, is_adjective: bool) -> str:
  shown = name if is_adjective else _UNITS.get(name, name)
  return shown + _EXPONENTS[exponent]
