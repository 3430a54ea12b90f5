"""A hash of content tells corpora and models apart, wherever they are."""

import pathlib
import shutil

import pytest

from toolformer_jax.data.catalogue import CATALOGUE
from toolformer_jax.data.content_hash import content_fingerprint
from toolformer_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'set').mkdir()
  (tmp_path / 'set/train.jsonl').write_text('{"text": "One."}\n')
  return tmp_path / 'set'


@pytest.mark.parametrize('form', ['{}', '{}/train.jsonl', 'hf:{}', 'hf:{}@train'])
def test_only_the_content_counts(folder, form):
  before = content_fingerprint(form.format(folder))
  copy = shutil.copytree(folder, folder.with_name('copy'))
  assert content_fingerprint(form.format(copy)) == before
  assert content_fingerprint(pathlib.Path(copy)) == content_fingerprint(str(folder))
  (copy / 'train.jsonl').write_text('{"text": "Two."}\n')
  assert content_fingerprint(form.format(copy)) != before


def test_parts_of_a_dataset_differ(folder):
  same = [f'hf:{folder}', f'hf:{folder}/', f'hf:{folder}@train']
  assert len({content_fingerprint(name) for name in same}) == 1
  names = [f'hf:{folder}', f'hf:{folder}@test', f'hf:{folder}@train[:5]', 'hf:org/name',
           'tfds:c4/en', 'seqio:module:task']
  assert len({content_fingerprint(name) for name in names}) == len(names)


def test_the_catalogue_states_hashes(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  assert content_fingerprint('word-problems') == CATALOGUE['word-problems'].sha256
  (tmp_path / 'word-problems').write_text('{"text": "Mine."}\n')
  assert content_fingerprint('word-problems') != CATALOGUE['word-problems'].sha256


def test_checkpoints_of_a_training_do_not_count(folder):
  (folder / 'model').mkdir()
  (folder / 'model/weights').write_text('1')
  before = content_fingerprint(folder)
  (folder / 'checkpoint').write_text('2')
  assert content_fingerprint(folder) == before


def test_nothing_has_no_hash(tmp_path):
  with pytest.raises(UserError, match='cannot read .*nowhere'):
    content_fingerprint(tmp_path / 'nowhere')
