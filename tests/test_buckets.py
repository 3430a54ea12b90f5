"""What is in a bucket is read and written like what is on disk."""

import bz2
import functools
import gzip
import json
import lzma
import os

import jax
import numpy as np
import pytest
import zstandard

from toolformer_jax import api
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.checkpoints.orbax import save_model
from toolformer_jax.checkpoints.pretrained import load_pretrained, pretrained_config
from toolformer_jax.config import loading
from toolformer_jax.data.content_hash import content_fingerprint
from toolformer_jax.data.corpus import corpus_hash, read_corpus
from toolformer_jax.data.input_texts import read_prompts
from toolformer_jax.errors import NotLocalError, UserError
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.tasks import TASKS, load_examples
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.runtime.paths import as_path, files_under, glob, upload
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.call_store import Answer, CallStore
from toolformer_jax.tools.passage_index import SearchConfig, passage_index

DOCUMENTS = ''.join(json.dumps({'text': f'Text {i} of Z\u00fcrich.'}) + '\n'
                    for i in range(500)).encode()
PAGE = ('<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><page><title>Bern</title>'
        '<ns>0</ns><revision><timestamp>2020-01-01T00:00:00Z</timestamp><text>'
        + 'Bern is a city. ' * 20 + '</text></revision></page></mediawiki>').encode()


@pytest.fixture
def copied(bucket):
  """Returns a function that copies a file or a folder on disk to the bucket."""
  def copy(path):
    for file in files_under(as_path(path)) or [as_path(path)]:
      upload(file, as_path(bucket) / file.relative_to(as_path(path).parent))
    return f'{bucket}/{path.name}'
  return copy


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  path = tmp_path_factory.mktemp('cache')
  monkeypatch.setenv('TOOLFORMER_CACHE', str(path))
  return path


@pytest.mark.parametrize(('name', 'content'), [
  ('c.jsonl', DOCUMENTS), ('c.jsonl.gz', gzip.compress(DOCUMENTS, mtime=0)),
  ('c.jsonl.bz2', bz2.compress(DOCUMENTS)), ('c.jsonl.xz', lzma.compress(DOCUMENTS)),
  ('c.jsonl.zst', zstandard.compress(DOCUMENTS)), ('c.xml', PAGE),
  ('c.xml.bz2', bz2.compress(PAGE))])
def test_a_corpus_is_the_same(name, content, tmp_path, copied):
  (tmp_path / name).write_bytes(content)
  there = copied(tmp_path / name)
  assert [*read_corpus(there)] == [*read_corpus(tmp_path / name)] != []
  assert corpus_hash(there) == corpus_hash(str(tmp_path / name))


@pytest.mark.parametrize(('name', 'content', 'message'), [
  ('c.jsonl', b'{"text": 1}', r'gs://\S+/c.jsonl:1: a document needs the field `text`'),
  ('c.jsonl', b'\xff', r'gs://\S+/c.jsonl: not UTF-8 after line 0'),
  ('c.jsonl.gz', gzip.compress(DOCUMENTS, mtime=0)[:99], r'cannot read gs://\S+/c.jsonl.gz')])
def test_a_broken_corpus_is_named(name, content, message, tmp_path, copied):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=message):
    [*read_corpus(copied(tmp_path / name))]


def test_a_missing_corpus_is_named_with_those_like_it(tmp_path, copied):
  (tmp_path / 'corpus.jsonl').write_bytes(DOCUMENTS)
  there = copied(tmp_path / 'corpus.jsonl')
  with pytest.raises(UserError, match=r'no file gs://\S+/corpse.jsonl: did you mean corpus.jsonl'):
    [*read_corpus(there.replace('corpus', 'corpse'))]


def test_prompts_and_settings_are_read(bucket):
  folder = as_path(bucket)
  (folder / 'prompts.txt').write_bytes('one\nzw\u00f6lf\n'.encode())
  assert [text.text for text in read_prompts(folder / 'prompts.txt')] == ['one', 'zw\u00f6lf']
  (folder / 'base.gin').write_bytes(b'AnnotationConfig.seed = 7\n')
  (folder / 'run.gin').write_bytes((
      f"include '{folder}/base.gin'\nAnnotationConfig.top_p = 0.5\n").encode())
  config = loading.load([folder / 'run.gin'])
  assert (config.annotation.seed, config.annotation.top_p) == (7, 0.5)
  with pytest.raises(UserError, match=r'no gin file gs://\S+/other.gin'):
    loading.load([folder / 'other.gin'])


def test_the_questions_of_a_benchmark_are_the_same(tmp_path, copied):
  folder = tmp_path / 'data' / 'svamp'
  folder.mkdir(parents=True)
  (folder / 'SVAMP.json').write_text(json.dumps([
      {'ID': '1', 'Body': 'Tom has 2 pens.', 'Question': 'How many?', 'Answer': 2.0}]))
  there = copied(tmp_path / 'data')
  here, remote = (load_examples(TASKS['svamp'], path, EvaluationConfig())
                  for path in (tmp_path / 'data', there))
  assert remote == here != []


@pytest.mark.parametrize('save', [
  save_directory, save_model, functools.partial(save_directory, zstd=True)])
def test_a_model_comes_back_the_same(save, make_model, bucket, tmp_path):
  model = make_model()
  save(tmp_path / 'model', model)
  save(as_path(bucket) / 'model', model)
  here, there = (load_pretrained(str(path), mesh=model.mesh)
                 for path in (tmp_path / 'model', f'{bucket}/model'))
  assert there.config == here.config == pretrained_config(f'{bucket}/model')
  jax.tree.map(np.testing.assert_array_equal, there.variables, here.variables)
  assert there.tokenizer.encode('48 [x -> y]') == here.tokenizer.encode('48 [x -> y]')
  if save is not save_model:
    assert content_fingerprint(f'{bucket}/model') == content_fingerprint(tmp_path / 'model')


def test_a_model_that_was_not_written_to_its_end_is_none(make_model, bucket):
  model = make_model()
  save_model(as_path(bucket) / 'run' / 'model', model)
  (as_path(bucket) / 'run' / 'model' / 'config.json').unlink()
  (as_path(bucket) / 'run' / 'steps' / '1').write_bytes(b'')
  with pytest.raises(UserError, match='is not finished; start it again'):
    load_pretrained(f'{bucket}/run', mesh=model.mesh)


def test_an_export_is_the_same(make_model, bucket, tmp_path):
  model = make_model(adapter=LoraConfig(rank=2))
  for folder, adapter_of in (('merged', None), ('adapter', 'base')):
    for root in (str(tmp_path), bucket):
      api.export(model, output_dir=f'{root}/{folder}', adapter_of=adapter_of)
    here, there = (files_under(as_path(root) / folder) for root in (str(tmp_path), bucket))
    assert [file.name for file in here] == [file.name for file in there] != []
    assert [file.read_bytes() for file in here] == [file.read_bytes() for file in there]
    with pytest.raises(UserError, match='exists already'):
      api.export(model, output_dir=f'{bucket}/{folder}')


def test_weights_are_copied_once_and_again_after_a_change(make_model, bucket, cache):
  folder, first, second = as_path(bucket) / 'model', make_model(), make_model(rotary_base=5e3)
  save_directory(folder, first)
  for _ in range(2):
    assert load_pretrained(f'{folder}', mesh=first.mesh).config == first.config
    assert len([*(cache / 'buckets').glob('*/model.safetensors')]) == 1
  save_directory(folder, second)
  assert load_pretrained(f'{folder}', mesh=first.mesh).config == second.config
  assert len([*(cache / 'buckets').glob('*/model.safetensors')]) == 2


def test_what_is_copied_already_is_read_without_a_download(
    make_model, bucket, cache, copied, smollm2_path):
  folder, model = as_path(bucket) / 'model', make_model()
  save_directory(folder, model)
  gguf = copied(smollm2_path)
  for name in (str(folder), gguf):
    with pytest.raises(NotLocalError, match='not on this machine'):
      pretrained_config(name, local_files_only=True)
  assert not [*cache.glob('buckets/*/*')]
  load_pretrained(str(folder), mesh=model.mesh)
  for name in (str(folder), gguf):
    config = pretrained_config(name)
    assert pretrained_config(name, local_files_only=True) == config
  assert pretrained_config(str(folder), local_files_only=True) == model.config


def test_tool_calls_are_replayed_from_a_bucket_and_recorded_on_disk(tmp_path, copied):
  class Echo:
    name, version = 'Echo', '1'
  store = CallStore(as_path(tmp_path / 'calls'))
  store.add(Echo, [('x', Context(), Answer('y'))])
  store.close()
  there = as_path(copied(tmp_path / 'calls'))
  replayed = CallStore(there, replay=True)
  assert replayed.find(Echo, 'x', Context()) == Answer('y')
  replayed.close()
  with pytest.raises(UserError, match='must be on disk'):
    CallStore(there)


def test_a_corpus_is_searched(tmp_path, copied):
  pages = [{'title': name, 'text': f'{name} is a city.'} for name in ('Bern', 'Chur', 'Thun')]
  (tmp_path / 'pages.jsonl').write_text(''.join(json.dumps(page) + '\n' for page in pages))
  indexes = [passage_index(SearchConfig(corpus=corpus)) for corpus in
             (str(tmp_path / 'pages.jsonl'), copied(tmp_path / 'pages.jsonl'))]
  assert indexes[0].version == indexes[1].version
  assert [passage.title for passage in indexes[1].search('the city of Chur', 1)] == ['Chur']


def test_names_are_matched_in_one_folder(bucket, tmp_path):
  for root in (as_path(bucket), as_path(tmp_path)):
    folder = root / 'a[1]'
    for name in ('x.json', 'y.json', 'y.txt', 'inner/z.json'):
      os.makedirs(tmp_path / 'a[1]' / 'inner', exist_ok=True)
      (folder / name).write_bytes(b'')
    assert [path.name for path in glob(folder, '*.json')] == ['x.json', 'y.json']
    assert [path.name for path in files_under(folder)] == ['z.json', 'x.json', 'y.json', 'y.txt']
    assert glob(root / 'none', '*') == []
