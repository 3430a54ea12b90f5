"""The corpus of media with known content, and the measures of its components."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.errors import UserError
from toolformer_jax.media.image import decode_image
from toolformer_jax.media.table import MediaTable

PHOTOS = ('chelsea.png', 'coffee.png', 'motorcycle_left.png', 'rocket.jpg')


@pytest.fixture
def script(experiment):
  pytest.importorskip('PIL')
  return experiment('media_corpus')


@pytest.fixture
def photos(tmp_path):
  """Noise in the place of the photos."""
  image = pytest.importorskip('PIL.Image')
  folder = tmp_path / 'photos'
  folder.mkdir()
  for number, name in enumerate(PHOTOS):
    noise = np.random.default_rng(number).integers(0, 256, (90, 120, 3), np.uint8)
    image.fromarray(noise).save(folder / name)
  return folder


def parts(script):
  """The parts that can be made here."""
  speakers = all(map(shutil.which, ('flite', 'espeak-ng')))
  return [part for part in script.MAKERS if speakers or part in ('text', 'photo')]


def test_documents_have_media_and_say_what_is_in_them(script, photos, tmp_path):
  for part in parts(script):
    if part == 'video':
      pytest.importorskip('av')
    script.write(tmp_path, part, script.make(part, 6, 0, False, photos), question=False)
    rows = [json.loads(line) for line in (tmp_path / f'{part}.jsonl').read_text().splitlines()]
    documents = list(read_corpus(tmp_path / f'{part}.jsonl'))
    for row, document in zip(rows, documents, strict=True):
      (handle, medium), = MediaTable(document.media)
      assert f'({handle})' in document.text and row['answers'][0] in document.text
      assert set(row['answers'][0].split()) <= set(row['content'].split())
      if medium.kind == 'image':
        assert decode_image(medium).std() > 0


def test_the_questions_are_others_and_both_are_repeatable(script, photos):
  for part in parts(script):
    made = [list(script.make(part, 8, seed, held_out, photos))
            for seed, held_out in ((0, False), (0, False), (0, True), (1, False))]
    texts = [[(item.before, item.content) for item in items] for items in made]
    assert made[0] == made[1]
    assert texts[0] != texts[2] and made[0] != made[3]
    assert not {item.medium for item in made[0]} & {item.medium for item in made[2]}


def test_without_photos(script):
  with pytest.raises(UserError, match='--photos'):
    next(script.make('photo', 1, 0, False, None))


def test_words_are_compared_without_case_and_punctuation(experiment):
  words = experiment('media_components').words
  assert words('The train, at NINE: "3.20", o\'clock.') == [
      'the', 'train', 'at', '9', '3.20', "o'clock"]


@given(st.lists(st.sampled_from('abc'), max_size=8), st.lists(st.sampled_from('abc'), max_size=8),
       st.lists(st.sampled_from('abc'), max_size=8))
def test_the_edit_distance_is_a_distance(experiment, one, two, three):
  distance = experiment('media_components').edit_distance
  assert (distance(one, two) == 0) == (one == two)
  assert distance(one, two) == distance(two, one) <= max(len(one), len(two))
  assert distance(one, three) <= distance(one, two) + distance(two, three)
