"""The generated corpus: statements of derived numbers, in prose."""

import sys

import pytest

from toolformer_jax.data import word_problems
from toolformer_jax.data.equations import has_arithmetic_left
from toolformer_jax.data.word_problems import generate, solved
from toolformer_jax.errors import UserError

INSTRUCTION = ' Give the result as your final answer. Do not include units.'


def test_question_and_collapsed_solution():
  text = solved(
    'A bus has 40.0 seats and takes 12 trips. How many can ride?' + INSTRUCTION,
    'it offers 40*12=480 seats\nSo 480.0 / 2 = 240.0 seats/hour\n#### 240',
  )
  assert text == (
    'A bus has 40 seats and takes 12 trips. How many can ride? It offers 480 seats. '
    'So 240 seats per hour.'
  )


@pytest.mark.parametrize('solution', [
  'She gets 48=48 letters',
  'Let x be the number. 2x = 8',
  'Step:\n   • 3 + 4 = 7 apples',
  'It is 12 because 5 + 7 = 12',
  'He has 3 * 4 = 12, which costs £2 + £3 = $5',
])
def test_solutions_that_are_no_prose(solution):
  assert solved('How many?' + INSTRUCTION, solution) is None


def test_generates_the_same_prose_for_the_same_seed():
  pytest.importorskip('reasoning_gym')
  documents = list(generate(300, seed=5))
  assert documents == list(generate(300, seed=5))
  assert documents != list(generate(300, seed=6))
  assert 150 < len(documents) < 300
  assert len({document.id for document in documents}) == len(documents)
  for document in documents:
    assert not has_arithmetic_left(document.text)
    assert not {'•', '\n', '#', '*'}.intersection(document.text)
    assert 'final answer' not in document.text
    assert document.text.endswith('.')
    assert document.source == 'reasoning-gym gsm_symbolic'


def test_a_shorter_draw_is_a_prefix():
  pytest.importorskip('reasoning_gym')
  shorter = list(generate(100, seed=5))
  assert shorter == list(generate(200, seed=5))[:len(shorter)]


def test_missing_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'reasoning_gym', None)
  with pytest.raises(UserError, match='needs the extra quickstart'):
    list(word_problems.generate(1, 0))
