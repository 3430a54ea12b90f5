"""The media that a caller names for its texts."""

import pathlib

import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.media_contexts import contexts_with_media

from ..media.made_files import picture


@pytest.fixture
def file(tmp_path):
  (tmp_path / 'a.png').write_bytes(picture())
  return tmp_path / 'a.png'


def contexts(texts, media, given=None):
  return contexts_with_media(texts, given, media, MediaLimits())


def test_each_text_has_its_own_media(file):
  first, second = contexts(['a', 'b'], [[file], [str(file), file]], [Context('x'), Context('y')])
  assert [len(one.media) for one in (first, second)] == [1, 2]
  assert (first.document_id, second.document_id) == ('x', 'y')
  only, = contexts(['a'], [file])
  assert [handle for handle, _ in only.media] == ['image 1']
  assert contexts(['a'], ()) is None


@pytest.mark.parametrize(('texts', 'media', 'message'), [
  (['a'], 'a.png', r"must be a list of files, \['a.png'\]"),
  (['a'], pathlib.Path('a.png'), r"must be a list of files, \['a.png'\]"),
  (['a', 'b'], ['a.png'], 'a list of media for each prompt: 2, not 1'),
  (['a'], [['a.png'], []], 'a list of media for each prompt: 1, not 2')])
def test_media_of_another_shape_are_refused(texts, media, message):
  with pytest.raises(UserError, match=message):
    contexts(texts, media)
