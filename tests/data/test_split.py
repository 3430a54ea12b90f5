"""Splitting: nothing is lost, nothing is too long, and cuts stand where a reader would put them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.data.records import Document
from toolformer_jax.data.split import split_document


def encode(text: str) -> list[int]:
  """Two characters are a token."""
  return [0] * ((len(text) + 1) // 2)


def pieces(text: str, max_tokens: int) -> list[str]:
  return [piece.text for piece in split_document(Document('d', text), encode, max_tokens)]


TEXTS = st.lists(
  st.sampled_from(['a', 'bird', ' ', '\n', '\n\n', '. ', '!" ', 'extraordinarily', 'é', '。', '7'])
).map(''.join)


@given(text=TEXTS, max_tokens=st.integers(1, 12))
def test_laws(text, max_tokens):
  split = split_document(Document('d', text, url='u', title='t'), encode, max_tokens)
  if len(encode(text)) <= max_tokens:
    assert split == [Document('d', text, url='u', title='t')]
    return
  assert all(len(encode(piece.text)) <= max_tokens for piece in split)
  assert ''.join(''.join(piece.text for piece in split).split()) == ''.join(text.split())
  assert [piece.id for piece in split] == [f'd-{number}' for number in range(len(split))]
  assert all(piece.text == piece.text.strip() != '' for piece in split)
  assert all((piece.url, piece.title) == ('u', 't') for piece in split)


@pytest.mark.parametrize('text, max_tokens, expected', [
  ('One one.\n\nTwo two.\n\nThree.', 10, ['One one.\n\nTwo two.', 'Three.']),
  ('One one.\nTwo two.\nThree.', 9, ['One one.\nTwo two.', 'Three.']),
  ('One one. Two two! "Three." Four.', 10, ['One one. Two two!', '"Three." Four.']),
  ('One. Two three four five. Six.', 7, ['One.', 'Two three four', 'five.', 'Six.']),
  ('abcdefghij', 4, ['abcd', 'efgh', 'ij']),
])
def test_cuts_where_a_reader_would(text, max_tokens, expected):
  assert pieces(text, max_tokens) == expected


def test_time_is_linear():
  characters = 0

  def counting(text: str) -> list[int]:
    nonlocal characters
    characters += len(text)
    return encode(text)

  text = 'word word word. ' * 20000
  split_document(Document('d', text), counting, 192)
  assert characters < 15 * len(text)
