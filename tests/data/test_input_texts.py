"""Prompts are what stands between line feeds."""

import pytest

from toolformer_jax.data.input_texts import read_prompts


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
