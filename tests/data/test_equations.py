"""Collapsing equations: only what is wholly understood goes."""

import pytest

from toolformer_jax.data.equations import (
  collapse_equations,
  has_arithmetic_left,
  join_lines,
)


@pytest.mark.parametrize('text, collapsed', [
  ('He sold 21 + 11 = 32 boxes.', 'He sold 32 boxes.'),
  ('She sent 160-48=112 mails', 'She sent 112 mails'),
  ('It cost 53 x €13 = €689.', 'It cost €689.'),
  ('It is 410,000 x 7/100 = 28,700 in all', 'It is 28,700 in all'),
  ('She had 58*9 = 522', 'She had 522'),
  ('2 * 9 kg = 18 kg, and 18 kg / 3 = 6 kg.', '18 kg, and 6 kg.'),
  ('so 17 hats per child + 4 pairs of red gloves per child = 21 pieces', 'so 21 pieces'),
  ('Pay is $70/hour * 4 hours = $280', 'Pay is $280'),
  ('60 cups x 2 cups/person = 120 cups', '120 cups'),
  ('130 / 260 * 100% = 50%', '50%'),
  ('The sides are 2(110+108) = 436', 'The sides are 436'),
  ('12 yards * (3 feet / 1 yard) = 36 feet', '36 feet'),
  ('In 2 + 3 = 1 + 4 = 5 days', 'In 5 days'),
  ('29 years * 3= 87 years', '87 years'),
  ('(2+3)*4=20', '20'),
  ('.5*8=4', '4'),
])
def test_collapses(text, collapsed):
  assert collapse_equations(text) == collapsed
  assert not has_arithmetic_left(collapsed)


@pytest.mark.parametrize('text', [
  'x + 3 = 5',
  'Tom = 14',
  'half * 198 = 99',
  '10/40 = 1/4 of it',
  'T = 139 + T = 182',
  'They got 48=48 letters',
  '3 + 4 = 7x',
  '3 + 5 = 2 *',
])
def test_leaves_what_it_does_not_understand(text):
  assert has_arithmetic_left(collapse_equations(text))


@pytest.mark.parametrize('text', [
  'In 1914-18 and on 3/4 of a well-known page, 2,000 of 3.5 x-rays.',
  'Room 5 has 6 chairs; 50% of them, or 3, cost $9.99.',
])
def test_prose_is_untouched(text):
  assert collapse_equations(text) == text
  assert not has_arithmetic_left(text)


def test_lines_become_sentences():
  assert join_lines('first it rained\n\n  Then it snowed!\nso:\n1 flake\n') == (
    'First it rained. Then it snowed! So: 1 flake.'
  )


def test_time_is_linear_in_hostile_text():
  for text in ('1 + ' * 20000, '1 a b c ' * 20000, '(' * 50000, '1 = ' * 20000, '9' * 50000):
    collapse_equations(text)
