"""Changed copies of texts: how much changes, what stays, and that a seed gives the same texts."""

from collections import Counter

import pytest

from toolformer_jax.data.augmentation import AugmentationConfig, changed_text, preprocessor
from toolformer_jax.errors import UserError

WORDS = ' '.join(f'word{i}' for i in range(2000))
PROMPT = 'one two three four five six\nseven eight nine ten\nIntent:'


def test_at_zero_every_text_stays_as_it_is():
  for text in (PROMPT, WORDS, '', '  two  spaces\n\n', 'a\tb\r\n c'):
    assert changed_text(text, AugmentationConfig(), 0) == text


def test_words_are_left_out_at_the_rate_and_stay_in_order():
  kept = changed_text(WORDS, AugmentationConfig(word_dropout=0.3), 0).split()
  assert len(kept) == pytest.approx(0.7 * 2000, rel=0.05)
  assert kept == sorted(kept, key=lambda word: int(word.removeprefix('word')))


def test_swapped_words_move_by_one_place_and_none_is_lost():
  words = WORDS.split()
  swapped = changed_text(WORDS, AugmentationConfig(word_swap=0.2), 0).split()
  assert Counter(swapped) == Counter(words)
  moves = [abs(place - int(word.removeprefix('word'))) for place, word in enumerate(swapped)]
  assert set(moves) == {0, 1}
  # Of n places, each that is not the second of a pair begins a pair with the rate: n r / (1 + r).
  assert sum(moves) / 2 == pytest.approx(2000 * 0.2 / 1.2, rel=0.1)


def test_every_line_keeps_a_word_and_the_last_line_stays():
  changed = changed_text(PROMPT, AugmentationConfig(word_dropout=1.0, word_swap=1.0), 0).split('\n')
  assert len(changed) == 3 and changed[-1] == 'Intent:'
  for line, whole in zip(changed[:2], PROMPT.split('\n'), strict=False):
    assert line in whole.split()


def test_the_same_seed_gives_the_same_texts_and_another_one_others():
  config = AugmentationConfig(word_dropout=0.3, word_swap=0.3)
  assert changed_text(PROMPT, config, 5) == changed_text(PROMPT, config, 5)
  assert len({changed_text(WORDS, config, seed, copy) for seed in (0, 1) for copy in (0, 1)}) == 4


@pytest.mark.parametrize('wrong', [
  {'word_dropout': 1.1}, {'word_swap': -0.1}, {'copies': 0}, {'word_swap': '0.1'}])
def test_settings_out_of_range_are_refused(wrong):
  with pytest.raises(UserError, match=f'AugmentationConfig.{next(iter(wrong))} must be'):
    AugmentationConfig(**wrong)


def test_a_preprocessor_of_seqio_changes_the_same_words():
  tf = pytest.importorskip('tensorflow')
  config = AugmentationConfig(word_dropout=0.3, word_swap=0.3)
  texts = [PROMPT, 'straße für über\nDeutsch:', '一 二 三 四 五 六']
  dataset = tf.data.Dataset.from_tensor_slices({'inputs': texts, 'targets': ['a', 'b', 'c']})
  def changed(config, **settings):
    rows = list(preprocessor(config, **settings)(dataset).as_numpy_iterator())
    assert [row['targets'] for row in rows] == [b'a', b'b', b'c']
    return [row['inputs'].decode() for row in rows]
  assert changed(config, seed=3) == [changed_text(text, config, 3) for text in texts] != texts
  assert changed(AugmentationConfig()) == texts
