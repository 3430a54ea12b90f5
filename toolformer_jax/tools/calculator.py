"""The calculator (paper, section 3): the four operations, exactly, by a parser of our own.

    expression := term (('+' | '-') term)*
    term       := factor (('*' | '/') factor)*
    factor     := ('+' | '-')* atom '%'*
    atom       := number | '(' expression ')' | '[' expression ']' | '{' expression '}'

A number may have thousands commas and a currency sign; `%` means hundredths, and an equals sign at
the end means nothing. Other signs for the operations are understood, such as `12 x 5`. Powers are
not among them, and every budget below is checked, so that no argument takes long.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from toolformer_jax import calls
from toolformer_jax.tools.base import Context, ToolError

MAX_CHARS = 500
MAX_DEPTH = 50
MAX_OPERATIONS = 100
# Of every number and of the numerator and denominator of every intermediate value.
MAX_DIGITS = 100

_TOKEN = re.compile(
  r'\s*(?:(?:[$€£¥₹]\s*)?(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+\.?[0-9]*|\.[0-9]+)'
  r'|(?P<symbol>[-+*/()%\[\]{}]))'
)
_SYNONYMS = str.maketrans({
  **dict.fromkeys('×✕✖⨯·⋅∙•∗xX', '*'), **dict.fromkeys('÷∕⁄', '/'), **dict.fromkeys('−–‐‑‒', '-'),
  # The full-width forms of ASCII. Others, such as ² or ½, do not mean their digits.
  **{chr(code + 0xfee0): chr(code) for code in range(0x21, 0x7f)},
})
_HEXADECIMAL = re.compile(r'(?<![0-9.])0[xX][0-9]')
_CLOSING = {'(': ')', '[': ']', '{': '}'}
_INVALID = 'not an arithmetic expression'


class Evaluation(NamedTuple):
  """The exact value of an expression, and how many operations it took."""

  value: Fraction
  operations: int


class Calculator:
  """Computes `27 + 4 * 2` -> `35`, as paper section 3 and Table 1 have it."""

  name = 'Calculator'
  version = '2'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the value of the expression `argument`, rounded to two decimals.

    Raises:
      ToolError: it is no valid expression, divides by zero, is over a budget, or has no operation:
        copying a number is not calculating.
    """
    evaluation = evaluate(calls.unquote(argument))
    if not evaluation.operations:
      raise ToolError('no operation')
    return format_number(evaluation.value)


def evaluate(expression: str) -> Evaluation:
  """Returns the exact value of `expression`.

  Raises:
    ToolError: it is no valid expression, divides by zero or is over a budget.
  """
  if len(expression) > MAX_CHARS:
    raise ToolError('expression too long')
  if _HEXADECIMAL.search(expression):
    raise ToolError(_INVALID)
  expression = expression.translate(_SYNONYMS).rstrip().removesuffix('=')
  parser = _Parser(_tokens(expression))
  value = parser.expression()
  if parser.peek():
    raise ToolError(_INVALID)
  return Evaluation(value, parser.operations)


def format_number(value: Fraction) -> str:
  """Returns `value` as the paper prints it: `35` if integral, else two decimals, `0.29`, `3.70`.

  Halves are rounded away from zero, on the exact value.
  """
  if value.denominator == 1:
    return str(value.numerator)
  hundredths = (200 * abs(value.numerator) + value.denominator) // (2 * value.denominator)
  sign = '-' if value < 0 and hundredths else ''
  return f'{sign}{hundredths // 100}.{hundredths % 100:02d}'


def _tokens(expression: str) -> list[str]:
  """Returns the numbers, without currency sign and commas, and the symbols of `expression`."""
  tokens, at, end = [], 0, len(expression.rstrip())
  while at < end:
    match = _TOKEN.match(expression, at)
    if not match:
      raise ToolError(_INVALID)
    tokens.append(match['symbol'] or match['number'].replace(',', ''))
    at = match.end()
  return tokens


class _Parser:
  """A recursive-descent parser that evaluates as it reads."""

  def __init__(self, tokens: list[str]):
    self.operations = 0
    self._tokens = tokens
    self._at = 0
    self._depth = 0

  def peek(self) -> str:
    """Returns the next token, '' at the end."""
    return self._tokens[self._at] if self._at < len(self._tokens) else ''

  def expression(self) -> Fraction:
    """Reads a sum."""
    value = self._term()
    while self.peek() in ('+', '-'):
      operator, right = self._take(), self._term()
      value = self._operation(value + right if operator == '+' else value - right)
    return value

  def _term(self) -> Fraction:
    value = self._factor()
    while self.peek() in ('*', '/'):
      operator, right = self._take(), self._factor()
      if operator == '/' and not right:
        raise ToolError('division by zero')
      value = self._operation(value * right if operator == '*' else value / right)
    return value

  def _factor(self) -> Fraction:
    sign = 1
    while self.peek() in ('+', '-'):
      sign = -sign if self._take() == '-' else sign
    value = sign * self._atom()
    while self.peek() == '%':
      self._take()
      value = _bounded(value / 100)
    return value

  def _atom(self) -> Fraction:
    token = self._take()
    if token in _CLOSING:
      return self._group(_CLOSING[token])
    if not token or token in '+-*/)]}%':
      raise ToolError(_INVALID)
    if len(token) > MAX_DIGITS:
      raise ToolError('number too long')
    return Fraction(token)

  def _group(self, closing: str) -> Fraction:
    self._depth += 1
    if self._depth > MAX_DEPTH:
      raise ToolError('nested too deeply')
    value = self.expression()
    if self._take() != closing:
      raise ToolError(_INVALID)
    self._depth -= 1
    return value

  def _take(self) -> str:
    token = self.peek()
    self._at += 1
    return token

  def _operation(self, value: Fraction) -> Fraction:
    self.operations += 1
    if self.operations > MAX_OPERATIONS:
      raise ToolError('too many operations')
    return _bounded(value)


def _bounded(value: Fraction) -> Fraction:
  """Returns `value` if it is within the budget of digits."""
  if max(abs(value.numerator), value.denominator) >= 10**MAX_DIGITS:
    raise ToolError('number too long')
  return value
