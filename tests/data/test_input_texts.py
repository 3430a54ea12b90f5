"""Prompts are what stands between line feeds."""

import pytest

from toolformer_jax.data.input_texts import read_prompts, read_texts
from toolformer_jax.errors import UserError


@pytest.mark.parametrize('content, prompts', [
  (b'one\ntwo\n', ['one', 'two']),
  (b'one\r\ntwo', ['one', 'two']),
  (b'one\n\ntwo\n', ['one', '', 'two']),
  ('o\u2028n\u0085e\x0c\x1d\ntwo\n'.encode(), ['o\u2028n\u0085e\x0c\x1d', 'two']),
  (b'\xef\xbb\xbfone\n', ['one']),
  (b'', []),
])
def test_prompts(tmp_path, content, prompts):
  path = tmp_path / 'prompts.txt'
  path.write_bytes(content)
  assert [prompt.text for prompt in read_prompts(path)] == prompts


def test_dates(tmp_path):
  path = tmp_path / 'texts.jsonl'
  path.write_text('{"text": "a", "date": "2020-02-29T10:00"}\n{"text": "b", "date": null}\n'
                  '{"text": "c"}\n')
  assert [text.date for text in read_texts(path)] == ['2020-02-29', None, None]


@pytest.mark.parametrize('date', ['"2021-02-29"', '"3 May 2020"', '""', '20200301'])
def test_a_date_that_cannot_be_read_is_an_error(tmp_path, date):
  """Otherwise the calendar would answer with the date of today."""
  path = tmp_path / 'texts.jsonl'
  path.write_text('{"text": "a"}\n' f'{{"text": "b", "date": {date}}}\n')
  with pytest.raises(UserError, match=r'texts.jsonl:2: the field `date` must begin with YYYY-MM'):
    list(read_texts(path))
