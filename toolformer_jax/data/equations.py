"""Collapses equations inside prose into statements: '21 + 11 = 32 boxes' becomes '32 boxes'.

The text that is left states each derived number without its derivation, so that a calculator call
before it helps.
"""

import re

_NUMBER = r'(?:\d[\d,]*+(?:\.\d++)?+|\.\d++)'
# A character of Unicode's private use area may mark a number, and is kept with it.
_VALUE = rf'[-−]?(?:[$£€] ?)?(?:[\ue000-\uf8ff][-−$£€]?)?{_NUMBER}(?: ?%)?'
# A unit is a few words, such as 'skeins per pair of leg warmers' or 'boys/girl'; 'x' multiplies.
_WORD = r'(?!x\b)[A-Za-z][\w\'’-]*+(?:/[A-Za-z]++)?+'
_UNIT = rf'(?:/[A-Za-z]++)?+(?: ?{_WORD}(?: {_WORD}){{0,6}})?'
_OPERATOR = r' *[-−–+*/×÷xX] *'
_TERM = rf'{_VALUE}{_UNIT}'
# Every repetition is bounded, so that time is linear in the length of any text.
_GROUP = rf'(?:{_VALUE})?\( *{_TERM}(?:{_OPERATOR}{_TERM}){{0,9}} *\){_UNIT}'
_OPERAND = rf'(?:{_GROUP}|{_TERM})'
_OPERATION = rf'(?:{_OPERAND}(?:{_OPERATOR}{_OPERAND}){{1,9}}|{_GROUP})'
# The value of an equation must be complete: no digit, variable or operator may follow it.
_WHOLE = rf'(?!\d|[.,]\d|[xy]\b|{_UNIT}(?: *[*+=×÷]| [-−–/xX] |[-−–/]\d))'
_EQUATION = re.compile(
  rf'(?<![\w.,$£€+*/=×÷−-]){_OPERATION}'
  rf'(?: *= *{_OPERAND}(?:{_OPERATOR}{_OPERAND}){{0,9}}){{0,3}}? *= *({_VALUE}){_WHOLE}'
)
# Fractions such as 3/4 are prose; any other operator between two numbers is arithmetic.
_ARITHMETIC = re.compile(r'=|\d *[+*×÷] *[$£€]?\d|\d(?: [-−–xX/] | ?[xX] ?)[$£€]?\d')


def collapse_equations(text: str) -> str:
  """Returns `text` with each equation replaced by its value.

  An equation is one or more operations on numbers, which may carry currencies, percent signs,
  units and one level of parentheses, and a number after the last `=`. One with a variable, or
  with a fraction as its value, is left as it is; see `has_arithmetic_left`.
  """
  return _EQUATION.sub(r'\1', text)


def has_arithmetic_left(text: str) -> bool:
  """Tells whether `text` holds an `=`, or an operator between two numbers."""
  return _ARITHMETIC.search(text) is not None


def join_lines(text: str) -> str:
  """Returns the lines of `text` as one paragraph in which each line is a sentence."""
  lines = (line.strip() for line in text.splitlines())
  return ' '.join(
    line[0].upper() + line[1:] + ('' if line[-1] in '.!?:;,' else '.') for line in lines if line
  )
