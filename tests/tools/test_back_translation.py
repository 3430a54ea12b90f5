"""Back-translation: which texts change, what stays, what is kept in a store, and what fails."""

import logging
import threading

import pytest
from etils import epath

from toolformer_jax.errors import UserError
from toolformer_jax.tools.apertium import FROM_ENGLISH, ROUTES, Apertium
from toolformer_jax.tools.back_translation import BackTranslation
from toolformer_jax.tools.base import ToolError
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.few_shot import FewShotTranslator, prompt_from_english
from toolformer_jax.tools.language import identify_language
from toolformer_jax.tools.mt import MachineTranslation

TEXTS = [f'the {size} house\nthe dog number {n}\nTopic:' for n in range(100)
         for size in ('big', 'small')]


class Words:
  """Translates word by word; of two words that mean the same, back into the first."""

  def __init__(self):
    self.version, self.asked = 'words', []
    self._spanish = {'the': 'el', 'big': 'gran', 'large': 'gran', 'house': 'casa', 'dog': 'perro'}
    self._english = {other: word for word, other in self._spanish.items()}

  def check_pair(self, source, target):
    if {source, target} != {'en', 'es'}:
      raise ToolError(f'no pair: {source} to {target}')

  def translate(self, text, language, target='en'):
    self.check_pair(language, target)
    self.asked.append(text)
    if 'number 7' in text or 'number 8' in text:
      raise ToolError('too long: 7')
    words = self._spanish if target == 'es' else self._english
    return ' '.join(words.get(word, word) for word in text.split())


def mt_of(translator):
  return MachineTranslation(translator, identify_language)


def back_translation(translator, through='es', **options):
  return BackTranslation(mt_of(translator), through, **{'rate': 1.0, **options})


def test_at_zero_every_text_stays_and_nothing_is_translated():
  translator = Words()
  found = back_translation(translator, rate=0.0)
  assert [found.changed_text(text) for text in TEXTS] == TEXTS and translator.asked == []


def test_a_text_comes_back_in_other_words_but_its_last_line_stays():
  found = back_translation(Words())
  assert found.changed_text('the big house\nthe dog\n\nthe big') == (
      'the large house\nthe dog\n\nthe big')
  assert found.changed_text('the big house') == 'the large house'


def test_the_rate_is_the_share_that_changes_and_the_seed_decides_which():
  def chosen(**options):
    changed = map(back_translation(Words(), **{'rate': 0.3, **options}).changed_text, BIG)
    return [text for text, after in zip(BIG, changed, strict=True) if text != after]
  BIG = [f'the big house {n}' for n in range(400)]
  assert len(chosen()) == pytest.approx(0.3 * 400, rel=0.2)
  assert chosen() == chosen() != chosen(seed=1)
  assert {*chosen()} < {*chosen(rate=0.6)}


def test_what_cannot_be_translated_stays_and_is_told(caplog):
  found = back_translation(Words())
  with caplog.at_level(logging.WARNING, 'toolformer_jax'):
    changed = [found.changed_text(text) for text in TEXTS]
  for text, after in zip(TEXTS, changed, strict=True):
    first, second, last = text.split('\n')
    assert after == f'{first.replace("big", "large")}\n{second}\n{last}'
  # Numbers 7 and 8, and those that begin so, of both sizes.
  assert found.num_failed == 2 * 22
  assert [record.getMessage() for record in caplog.records] == [
      f'back-translation: {count} lines stay as they are; the last one: MT: too long: 7'
      for count in (1, 10)]


def test_a_later_run_translates_only_what_is_not_in_the_store(tmp_path):
  path, first, second = epath.Path(tmp_path / 'translations.sqlite'), Words(), Words()
  half = [back_translation(first, store=CallStore(path)).changed_text(text) for text in TEXTS[:50]]
  later = back_translation(second, store=CallStore(path))
  assert [later.changed_text(text) for text in TEXTS][:50] == half
  whole = Words()
  assert [back_translation(whole).changed_text(text) for text in TEXTS[:50]] == half
  lines = {line for text in TEXTS[:50] for line in text.split('\n')[:-1]}
  assert first.asked and not {*second.asked} & lines  # in either language
  assert {'the dog number 25', 'el perro number 25'} <= {*second.asked}


def test_what_cannot_work_is_refused_at_once():
  with pytest.raises(UserError, match='translation from en into de: no pair'):
    back_translation(Words(), 'de')
  with pytest.raises(UserError, match='rate must be between 0 and 1, not 1.5'):
    back_translation(Words(), rate=1.5)


def test_no_thread_is_left():
  def threads():
    return {thread for thread in threading.enumerate() if thread.name == 'tool'}
  before = threads()
  with back_translation(Words()) as found:
    assert found.changed_text('the big house') == 'the large house'
    started = threads() - before
    assert len(started) == 2
  for thread in started:
    thread.join(10)
  assert not any(thread.is_alive() for thread in started)
  one_way = Words()
  one_way.check_pair = lambda source, target: Words().check_pair(source, target if source == 'en'
                                                                 else 'no way back')
  with pytest.raises(UserError, match='translation from es into en: no pair'):
    back_translation(one_way)
  assert threads() <= before


def test_a_preprocessor_of_seqio_changes_the_same_texts():
  tf = pytest.importorskip('tensorflow')
  found, texts = back_translation(Words(), rate=0.5), [*TEXTS, 'straße für\nDeutsch:']
  dataset = tf.data.Dataset.from_tensor_slices({'inputs': texts, 'targets': texts})
  rows = list(found.preprocessor()(dataset).as_numpy_iterator())
  assert [row['targets'].decode() for row in rows] == texts
  assert [row['inputs'].decode() for row in rows] == [
      back_translation(Words(), rate=0.5).changed_text(text) for text in texts] != texts
  assert list(back_translation(Words(), rate=0.0).preprocessor()(dataset).as_numpy_iterator())[
      0]['inputs'].decode() == texts[0]


def test_a_model_is_asked_in_both_directions():
  seen = []
  def complete(prompts):
    seen.extend(prompts)
    return [' el perro' if prompt.endswith('Spanish:') else ' the hound' for prompt in prompts]
  found = back_translation(FewShotTranslator(complete, 'm'))
  assert found.changed_text('the dog') == 'the hound'
  assert seen[0] == prompt_from_english('the dog', 'Spanish')
  assert seen[0].endswith('English: the dog\nSpanish:')
  assert seen[1].endswith('Spanish: el perro\nEnglish:')
  with pytest.raises(UserError, match='no pair: en to xx'):
    back_translation(FewShotTranslator(complete, 'm'), 'xx')


def test_every_route_from_english_has_a_way_back():
  assert FROM_ENGLISH.keys() <= ROUTES.keys()
  assert all(route[0].partition('-')[0] in ('en', 'eng') for route in FROM_ENGLISH.values())


@pytest.mark.parametrize('through', ['es', 'eo', 'fr'])
def test_the_rules_of_apertium_find_other_words(through):
  try:
    apertium = Apertium()
    found = back_translation(apertium, through)
  except UserError as error:
    pytest.skip(str(error))
  text = 'The big house on the hill has a beautiful garden.\nTopic:'
  changed, last = found.changed_text(text).split('\n')
  assert last == 'Topic:' and found.num_failed == 0
  assert 'house' in changed.lower() and 'garden' in changed.lower()
  apertium.close()
