"""Languages are told apart, on real sentences."""

from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.tools.language import identify_language


def test_sentences_are_told(data_dir):
  right, count = 0, 0
  for language in ['ar', 'de', 'en', 'es', 'fr', 'hi', 'pt', 'ru', 'vi', 'zh']:
    pair = 'de-en.en' if language == 'en' else f'{language}-en.{language}'
    lines = (data_dir / 'flores200' / f'flores-dev.{pair}').read_text('utf-8').splitlines()
    right += sum(identify_language(line)[0] == language for line in lines)
    count += len(lines)
  assert right / count >= 0.98


@given(st.text())
def test_any_text_has_a_language_or_none(text):
  language, confidence = identify_language(text)
  assert 0 <= confidence <= 1 and language == language.strip()
  assert bool(language) == any(character.isalpha() for character in text)


@given(st.text('0123456789 .,;+-*/=$%()'))
def test_without_letters_there_is_none(text):
  assert identify_language(text) == ('', 0.0)
