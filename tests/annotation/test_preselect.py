"""The heuristics of the paper's appendix A, each with its boundaries."""

import time

import pytest

from toolformer_jax.annotation.preselect import preselect
from toolformer_jax.data.records import Document


def selects(tool: str, text: str, seed: int = 0, **fields) -> bool:
  return preselect(tool, Document('d', text, **fields), seed)


FILLER = ' word' * 96


@pytest.mark.parametrize('text', [
  'He had 12 and 30, so 42 in all.',
  'From 30 fell 12, which left 18.',
  '1,200 ants of 3 legs: 3,600 legs.',
  'Of 252 days, 723 hours: 2.87 each.',
  '5 and' + FILLER + ' 6 11',
  'This equals 5.',
  'a TOTAL OF $5',
  'an average of 12.5',
  'is equal to 4',
  'x=3',
])
def test_calculator_takes(text):
  assert selects('Calculator', text)


@pytest.mark.parametrize('text', [
  'No number.',
  'He had 12 and 30.',
  'It equals out, in total 5.',
  'He had 12 and 30, so 43 in all.',
  '5 and' + FILLER + ' and 6 11',
  'Version 1.2.3 of A4, the 5th, and 2x.',
  'Numbers 111111111111111111111111 1 111111111111111111111112',
])
def test_calculator_leaves(text):
  assert not selects('Calculator', text)


def test_window_holds_all_three():
  near = ' word' * 60
  assert not selects('Calculator', f'5 {near} 6 {near} 11')
  assert selects('Calculator', f'5 {near} 6 11 {near} 100')


def test_a_hundredth_of_the_numerous_documents():
  documents = [Document(f'd{n}', 'Rooms 17, 29 and 63.') for n in range(5000)]
  taken = [d.id for d in documents if preselect('Calculator', d, seed=1)]
  assert 30 < len(taken) < 70
  assert taken == [d.id for d in documents if preselect('Calculator', d, seed=1)]
  assert taken != [d.id for d in documents if preselect('Calculator', d, seed=2)]


def test_many_numbers_take_linear_time():
  start = time.process_time()
  selects('Calculator', ' '.join(str(2 * n * n + 10**7) for n in range(300)))
  selects('Calculator', ' '.join(['7'] * 3000))
  assert time.process_time() - start < 5


def test_calendar_needs_a_date():
  assert selects('Calendar', 'x', date='2018-03-21')
  assert not selects('Calendar', 'x')


ENGLISH = 'This sentence about the weather in spring is written in English, as you can see. '
SPANISH = 'El gobierno anunció ayer que las nuevas reglas entrarán en vigor el próximo año. '


@pytest.mark.parametrize(('text', 'selected'), [
    (ENGLISH + SPANISH + ENGLISH, True),
    (ENGLISH + '高淳县位于南京市最南端，是一个美丽的地方，有很多人住在那里。' + ENGLISH, True),
    (SPANISH + ENGLISH, False),
    (ENGLISH + SPANISH, False),
    (ENGLISH * 3, False),
    (SPANISH * 3, False),
    (ENGLISH + '12 34 56 + 78 % 90 12 34 56 78 90 12 34 56 78 90 12 34 56 78 90 ' + ENGLISH, False),
    ('', False),
])
def test_translation_needs_foreign_text_within_english(text, selected):
  assert selects('MT', text) == selected


def test_other_tools_take_all():
  assert selects('WikiSearch', 'x')
  assert selects('MyTool', '')
