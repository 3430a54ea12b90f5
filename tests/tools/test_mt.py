"""Translations to English: by Apertium's real pairs, and by a model."""

import shutil

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer_jax.errors import UserError
from toolformer_jax.tools.apertium import ROUTES, Apertium
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.few_shot import LANGUAGES, FewShotTranslator, translation_prompt
from toolformer_jax.tools.language import identify_language
from toolformer_jax.tools.mt import MachineTranslation


@pytest.fixture(scope='module')
def apertium():
  try:
    translator = Apertium()
  except UserError as error:
    pytest.skip(str(error))
  yield translator
  translator.close()


@pytest.fixture
def mt(apertium):
  return MachineTranslation(apertium, identify_language)


@pytest.mark.parametrize('text, english', [
  ('la seguridad nuclear es importante', 'The nuclear security is important'),
  ('"la sûreté nucléaire"', 'The nuclear security'),
  ('La kato dormas en la granda domo.', 'The cat sleeps in the big house.'),
])
def test_the_language_is_told_from_the_text(mt, text, english):
  assert mt(text, Context()).lower() == english.lower()


@pytest.mark.parametrize('text, reason', [
  ('', 'nothing to translate'), (' "" ', 'nothing to translate'), ('1234 + 5', 'unknown language'),
  ('The cat sleeps in the big house.', 'it is English'),
  ('Мы живём в большом доме у моря.', 'no pair: Apertium does not translate ru to English'),
])
def test_what_can_not_be_translated_has_a_reason(mt, text, reason):
  with pytest.raises(ToolError, match=f'^{reason.replace("+", ".")}'):
    mt(text, Context())


def test_many_are_translated_as_one_each(mt):
  texts = ['el perro grande', '', 'das große Haus', 'une maison blanche', 'it is raining today']
  together = mt.call_many(texts, [Context()] * len(texts))
  for text, outcome in zip(texts, together, strict=True):
    if isinstance(outcome, ToolError):
      with pytest.raises(ToolError, match=str(outcome)):
        mt(text, Context())
    else:
      assert mt(text, Context()) == outcome


@given(st.text(max_size=80))
@settings(max_examples=60)
def test_any_text_gives_one_line_or_a_tool_error(apertium, text):
  try:
    assert '\n' not in apertium.translate(text, 'es')
  except (ToolError, ConnectionError):
    pass
  assert apertium.translate('la casa', 'es').lower() == 'the house'  # the pipeline still answers


@given(st.text('[]{}^$/\\@<>*#+.ab ', max_size=30))
@settings(max_examples=60)
def test_marks_of_the_stream_format_are_text(apertium, text):
  # All but ~, which postgeneration eats, escaped or not.
  translated = apertium.translate(f'zzqx {text} zzqx', 'es')
  marks = [c for c in text if c in '{}^$@<>#\\']
  assert [c for c in translated if c in '{}^$@<>#\\'] == marks


def test_a_pipeline_that_died_is_started_again(apertium):
  assert apertium.translate('el perro', 'es').lower() == 'the dog'
  for process in apertium._pipelines['spa-eng']._processes:
    process.kill()
  with pytest.raises(ConnectionError, match='Apertium failed'):
    apertium.translate('el perro', 'es')
  assert apertium.translate('el perro', 'es').lower() == 'the dog'


def test_a_pipeline_that_hangs_is_given_up(apertium, tmp_path):
  (tmp_path / 'spa-eng.mode').write_text('tail -f /dev/null')
  hung = Apertium(tmp_path, time_limit_s=0.3)
  for _ in range(2):
    with pytest.raises(ConnectionError, match='no translation within 0.3 seconds'):
      hung.translate('el perro', 'es')
  hung.close()


def test_a_text_that_could_block_a_pipe_is_refused(apertium):
  with pytest.raises(ToolError, match='too long'):
    apertium.translate('perro ' * 1000, 'es')
  assert len(apertium.translate('€' * 4990, 'es')) > 1000


def test_without_pairs_it_says_what_to_do(tmp_path):
  with pytest.raises(UserError, match='make apertium'):
    Apertium(tmp_path)


def test_the_version_depends_on_the_pairs_in_both_directions(tmp_path, monkeypatch):
  monkeypatch.setattr(shutil, 'which', lambda name: name)
  rules = tmp_path / 'eng-spa.bin'
  def version(mode='', text=''):
    if mode:
      (tmp_path / f'{mode}.mode').write_text(text)
    return Apertium(tmp_path).version
  alone = version('spa-eng', 'lt-proc spa.bin')
  assert version('es-fr', 'lt-proc fr.bin') == alone  # no route without eng-spa
  both = version('eng-spa', f'lt-proc {rules}')
  rules.write_text('rules')
  assert len({alone, both, version(), version('eng-spa', f'lt-proc -g {rules}')}) == 4


def test_every_route_ends_in_english():
  assert all(route[-1].rpartition('-')[2] in ('en', 'eng') for route in ROUTES.values())


def test_spanish_is_translated_well_enough(apertium, data_dir):
  def lines(side):
    path = data_dir / 'flores200' / f'flores-dev.es-en.{side}'
    return path.read_text('utf-8').splitlines()[:100]
  translated = [apertium.translate(line, 'es') for line in lines('es')]
  assert sacrebleu.corpus_bleu(translated, [lines('en')]).score >= 10


def test_a_model_is_given_the_language_by_name():
  seen = []
  def complete(prompts):
    seen.extend(prompts)
    return [' the dog'] * len(prompts)
  translator = FewShotTranslator(complete, 'm')
  outcomes = translator.translate_many(['el  perro', 'x', 'der Hund'], ['es', 'xx', 'de'])
  assert outcomes[0] == outcomes[2] == 'the dog' and isinstance(outcomes[1], ToolError)
  assert seen == [translation_prompt('el perro', 'Spanish'),
                  translation_prompt('der Hund', 'German')]
  assert seen[0].endswith('Spanish: el perro\nEnglish:')
  assert set(LANGUAGES) > {'es', 'fr', 'de', 'zh'}
