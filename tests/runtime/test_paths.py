"""Files on disk and in buckets: whole or absent, and the same text in both."""

import os
import pathlib
import subprocess
import sys

import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.runtime import paths
from toolformer_jax.runtime.paths import as_absolute_path, as_path, atomic_writer, open_text


@pytest.fixture(params=['disk', 'bucket'])
def folder(request, tmp_path):
  return as_path(request.getfixturevalue('bucket') if request.param == 'bucket' else tmp_path)


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_alone(folder, error):
  path = folder / 'file.txt'
  with pytest.raises(error), atomic_writer(path) as file:
    file.write('nothing')
    raise error
  assert not path.exists()
  with atomic_writer(path) as file:
    file.write('old')
  with pytest.raises(error), atomic_writer(path) as file:
    file.write('new')
    raise error
  assert path.read_bytes() == b'old' and [*folder.iterdir()] == [path]


def test_text_is_utf8_and_bytes_are_bytes(folder):
  with atomic_writer(folder / 'text') as file:
    file.write('Zürich\n→\n')
  with atomic_writer(folder / 'bytes', 'wb') as file:
    file.write(b'\xff\x00')
  with open_text(folder / 'text') as file:
    assert [*file] == ['Zürich\n', '→\n']
  assert (folder / 'bytes').read_bytes() == b'\xff\x00'


def test_another_process_is_seen(bucket):
  path = as_path(bucket) / 'folder' / 'one'
  path.write_text('1')
  assert [*path.parent.iterdir()] == [path]
  from google.cloud import storage  # as another process would, without the cache of this one
  blobs = storage.Client().bucket(path.parts[2])
  blobs.blob('folder/two').upload_from_string('2')
  blobs.blob('folder/one').upload_from_string('longer')
  assert sorted(file.name for file in path.parent.iterdir()) == ['one', 'two']
  assert path.read_text() == 'longer'


WITHOUT_TENSORFLOW = """
import sys
from toolformer_jax.checkpoints.orbax import load_orbax_config
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.runtime import locks
from toolformer_jax.runtime.paths import as_path, write_text
folder = as_path(sys.argv[1])
write_text(folder / 'corpus.jsonl', '{"text": "a"}')
with locks.lock(folder / '.lock'):
  assert len([*read_corpus(folder / 'corpus.jsonl')]) == 1
sys.exit('tensorflow' in sys.modules)
"""


def test_buckets_do_not_load_tensorflow(bucket):
  assert subprocess.run([sys.executable, '-c', WITHOUT_TENSORFLOW, bucket]).returncode == 0


def test_an_absolute_path_survives_a_change_of_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = as_absolute_path('runs/one')
  monkeypatch.chdir('/')
  assert os.fspath(path) == str(tmp_path / 'runs/one')
  assert os.fspath(as_path(pathlib.Path('runs/one'))) == 'runs/one'


def test_a_bucket_keeps_its_name(bucket, monkeypatch):
  assert os.fspath(as_absolute_path(f'{bucket}/runs/one')) == f'{bucket}/runs/one'


def test_other_stores_and_a_missing_package_are_named(monkeypatch):
  for name in ('s3://b/x', 'https://', 'http://a.org/x', 'file://x', 'az://b/x'):
    with pytest.raises(UserError, match=f'{name}: neither a path nor in Google Cloud Storage'):
      as_path(name)
  monkeypatch.setattr(paths.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r'gs://unseen/x: .* pip install "toolformer_jax\[gcs\]"'):
    as_path('gs://unseen/x')


@pytest.mark.parametrize(('name', 'why'), [
  ('a\0b', 'cannot be the name'), ('\ud800', 'cannot be the name')])
def test_what_cannot_be_a_name_is_refused(name, why):
  with pytest.raises(UserError, match=why):
    as_path(name)


def test_what_a_bucket_refuses_is_an_error_on_one_line(bucket):
  with pytest.raises(OSError), atomic_writer(f'{bucket}-that-is-not-there/file') as file:
    file.write('text')
