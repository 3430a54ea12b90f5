"""The calculator is exact, prints as the paper does, and refuses everything else at once."""

import operator
import re
import time
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer_jax.tools import calculator
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.calculator import Calculator, evaluate, format_number

OPERATORS = {'+': operator.add, '-': operator.sub, '*': operator.mul, '/': operator.truediv}
PRECEDENCE = {'+': 1, '-': 1, '*': 2, '/': 2}

numbers = st.one_of(
  st.integers(0, 9999).map(str),
  st.integers(0, 10**7).map('{:,}'.format),
  st.decimals(0, 1000, places=3).map('{:f}'.format),
  st.integers(0, 99).map('.{:02d}'.format),
)
trees = st.recursive(
  numbers, lambda inner: st.tuples(inner, st.sampled_from('+-*/'), inner), max_leaves=10
)
expression_texts = st.text('0123456789+-*/()%., $×÷−', max_size=60)


def calculate(argument):
  return Calculator()(argument, Context())


def value_of(tree):
  """The value of a tree, by Python's own fractions."""
  if isinstance(tree, str):
    return Fraction(tree.replace(',', ''))
  left, symbol, right = tree
  return OPERATORS[symbol](value_of(left), value_of(right))


def size_of(tree):
  return 0 if isinstance(tree, str) else 1 + size_of(tree[0]) + size_of(tree[2])


def spell(tree, at_least=0):
  """The tree's text with no more parentheses than precedence asks for."""
  if isinstance(tree, str):
    return tree
  left, symbol, right = tree
  rank = PRECEDENCE[symbol]
  text = f'{spell(left, rank)} {symbol} {spell(right, rank + 1)}'
  return f'({text})' if rank < at_least else text


@given(trees)
def test_value_is_that_of_the_expression_tree(tree):
  try:
    expected = value_of(tree)
  except ZeroDivisionError:
    with pytest.raises(ToolError, match='division by zero'):
      evaluate(spell(tree))
  else:
    assert evaluate(spell(tree)) == (expected, size_of(tree))


@given(trees)
def test_blanks_and_redundant_parentheses_change_nothing(tree):
  def outcome(text):
    try:
      return evaluate(text)
    except ToolError as error:
      return str(error)

  assert outcome(f' ( {spell(tree)} )\t') == outcome(spell(tree).replace(' ', ''))


@pytest.mark.parametrize('argument, result', [
  ('27 + 4 * 2', '35'),
  ('18 + 12 * 3', '54'),
  ('400 / 1400', '0.29'),
  ('735 / 499', '1.47'),
  ('37 / 10', '3.70'),
  ('723 / 252', '2.87'),
  ('658,893 / 11.4%', '5779763.16'),
  ('"4 * 30"', '120'),
])
def test_examples_of_the_paper(argument, result):
  assert calculate(argument) == result


@pytest.mark.parametrize('argument, result', [
  ('.5 + 5.', '5.50'),
  ('12 x 5', '60'),
  ('12X5', '60'),
  ('3 – 1', '2'),
  ('3 · 4 ⋅ 2 ∗ 1', '24'),
  ('6 ∕ 3', '2'),
  ('$ 5 * 3', '15'),
  ('3 + 4 =', '7'),
  ('[3 + {4}] * 2', '14'),
  ('１２＋３', '15'),
  ('-3 - -4', '1'),
  ('2 * -(3 + 4)', '-14'),
  ('+-+5 * 1', '-5'),
  ('8 - 4 - 2', '2'),
  ('8 / 4 / 2', '1'),
  ('50% * 10', '5'),
  ('$1,200.50 + €0.50', '1201'),
  ('6 × 7 ÷ 2 − 1', '20'),
  ('0 - 0.004', '0.00'),
  ('0 - 0.005', '-0.01'),
  ('1.005 * 1', '1.01'),
  ('2.999 * 1', '3.00'),
  ('(1 + 2) / 3', '1'),
  ('+'.join(['(1)'] * 90), '90'),
  ('99999999999999999999 + 1', '100000000000000000000'),
])
def test_spellings_and_rounding(argument, result):
  assert calculate(argument) == result


@given(st.integers(-10**9, 10**9))
def test_rounding_is_decimals_half_up(thousandths):
  exact = Decimal(thousandths).scaleb(-3)
  rounded = exact.quantize(Decimal('0.01'), ROUND_HALF_UP)
  printed = format_number(Fraction(thousandths, 1000))
  assert Decimal(printed) == rounded
  assert ('.' in printed) == (exact != exact.to_integral_value())


@given(st.fractions())
def test_printed_value_is_nearest_and_has_no_negative_zero(value):
  printed = format_number(value)
  assert re.fullmatch(r'-?[0-9]+(\.[0-9]{2})?', printed)
  assert abs(Fraction(printed) - value) <= Fraction(1, 200)
  assert printed != '-0.00'


@given(st.one_of(st.text(), expression_texts))
def test_any_text_gives_a_number_or_a_tool_error(text):
  try:
    result = calculate(text)
  except ToolError as error:
    assert str(error)
  else:
    assert re.fullmatch(r'-?[0-9]+(\.[0-9]{2})?', result)


@given(expression_texts)
def test_operations_are_bounded_by_the_length(text):
  try:
    evaluation = evaluate(text)
  except ToolError:
    return
  assert evaluation.operations <= max(len(text) - 1, 0) // 2


@pytest.mark.parametrize('argument, reason', [
  ('', 'not an arithmetic expression'),
  ('2^3', 'not an arithmetic expression'),
  ('3² + 1', 'not an arithmetic expression'),
  ('½ + 1', 'not an arithmetic expression'),
  ('1.234,50 + 1', 'not an arithmetic expression'),
  ('5 plus 3', 'not an arithmetic expression'),
  ('3 + 4 = 7', 'not an arithmetic expression'),
  ('3 + = 4', 'not an arithmetic expression'),
  ('0x10 + 1', 'not an arithmetic expression'),
  ('(3 + 4] * 2', 'not an arithmetic expression'),
  ('84', 'no operation'),
  ('-84%', 'no operation'),
  ('1/0', 'division by zero'),
  ('1 / (2 - 2)', 'division by zero'),
  ('9**9**9**9', 'not an arithmetic expression'),
  ('2 ^ 3', 'not an arithmetic expression'),
  ('7 // 2', 'not an arithmetic expression'),
  ('1,2 + 3', 'not an arithmetic expression'),
  ('1e9 * 2', 'not an arithmetic expression'),
  ('2 (3)', 'not an arithmetic expression'),
  ('(1 + 2', 'not an arithmetic expression'),
  ('1 + 2)', 'not an arithmetic expression'),
  ('7 % 2', 'not an arithmetic expression'),
  ('$ + 1', 'not an arithmetic expression'),
  ('٣ + ٤', 'not an arithmetic expression'),
  ("__import__('os')", 'not an arithmetic expression'),
  ('(' * 400, 'nested too deeply'),
  ('-' * 400, 'not an arithmetic expression'),
  ('9' * 400 + ' + 1', 'number too long'),
  ('1' + ' ' * 10**6 + '+ 1', 'expression too long'),
])
def test_everything_else_is_refused_with_the_reason(argument, reason):
  with pytest.raises(ToolError, match=f'^{reason}$'):
    calculate(argument)


@pytest.mark.parametrize('make, limit', [
  (lambda n: '1' + '+1' * n, calculator.MAX_OPERATIONS),
  (lambda n: '(' * n + '1+1' + ')' * n, calculator.MAX_DEPTH),
  (lambda n: '0+' + '9' * n, calculator.MAX_DIGITS),
  (lambda n: '10*1' + '0' * (n - 2), calculator.MAX_DIGITS),
  (lambda n: '1' + '%' * n, (calculator.MAX_DIGITS - 1) // 2),
  (lambda n: '1+1'.ljust(n - 1) + '%', calculator.MAX_CHARS),
])
def test_budgets_allow_their_limit_and_no_more(make, limit):
  evaluate(make(limit))
  with pytest.raises(ToolError, match='too'):
    evaluate(make(limit + 1))


@given(trees)
@settings(max_examples=5000)
def test_five_thousand_expressions_agree_with_fractions(tree):
  try:
    expected = format_number(value_of(tree))
  except ZeroDivisionError:
    expected = 'division by zero'
  try:
    found = calculate(spell(tree))
  except ToolError as error:
    found = str(error)
  assert found == expected or (isinstance(tree, str) and found == 'no operation')


PIECES = ['(', ')', '+', '-', '*', '/', '%', ' ', '9', '0', '.', ',', '1/3', '(1+', '99999', 'x']


def test_no_input_of_500_characters_is_costly():
  random, slowest = Random(0), (0.0, '')
  for number in range(4000):
    few = random.sample(PIECES, random.randint(1, len(PIECES)))
    text = ''.join(random.choices(few, k=500))[:500]
    if number % 4 == 0:  # one that can be read
      text = '*'.join(random.choices(['9' * 9, '(1/7)', '3%', '-2'], k=100))[:500].rstrip('*(1/-')
    start = time.perf_counter()
    try:
      assert evaluate(text).operations <= calculator.MAX_OPERATIONS
    except ToolError:
      pass
    slowest = max(slowest, (time.perf_counter() - start, text))
  print(f'slowest: {1000 * slowest[0]:.1f} ms, {slowest[1]!r}')
