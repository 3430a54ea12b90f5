"""Texts to train on, whoever wrote them; seqio's examples lose no id 0."""

import gzip
import sys
from collections import Counter

import pytest

from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.annotation.stage_keys import MERGED
from toolformer_jax.data.corpus import CorpusConfig
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall, write_records
from toolformer_jax.errors import UserError
from toolformer_jax.training.examples import task_example
from toolformer_jax.training.packing import pack
from toolformer_jax.training.sources import TaskRow, check_source, read_texts
from toolformer_jax.training.stream import training_data

CALL = ScoredCall('d', 'Calculator', '1 + 1', 0, 0.5, '2')
RECORDS = [AnnotatedDocument(Document('d', 'two'), (CALL,)),
           AnnotatedDocument(Document('e', 'no call'), ())]


def test_texts_with_calls_come_from_a_run_or_a_file(tmp_path):
  with RunFolder(tmp_path / 'run', {}, {}) as folder:
    for number, record in enumerate(RECORDS):
      folder.write(MERGED, number, [record], Counter())
    with pytest.raises(UserError, match='not the output folder of a finished annotation run'):
      list(read_texts(str(tmp_path / 'run')))
    folder.complete(MERGED)
  assert list(read_texts(str(tmp_path / 'run'))) == RECORDS
  write_records(tmp_path / 'c.jsonl', RECORDS)
  assert list(read_texts(str(tmp_path / 'c.jsonl'))) == RECORDS
  compressed = tmp_path / 'c.jsonl.gz'
  compressed.write_bytes(gzip.compress((tmp_path / 'c.jsonl').read_bytes()))
  assert list(read_texts(str(compressed))) == RECORDS  # with their calls


def test_records_with_and_without_calls_may_be_mixed(tmp_path):
  plain = '{"id": "p", "text": "plain"}\n'
  write_records(tmp_path / 'c.jsonl', RECORDS)
  (tmp_path / 'mixed.jsonl').write_text(plain + (tmp_path / 'c.jsonl').read_text())
  assert list(read_texts(str(tmp_path / 'mixed.jsonl'))) == [
      AnnotatedDocument(Document('p', 'plain'), ()), *RECORDS]


def test_any_corpus_is_plain_text(tmp_path):
  (tmp_path / 'plain.jsonl').write_text('{"text": "one"}\n{"text": "two", "id": "b"}\n')
  texts = list(read_texts(str(tmp_path / 'plain.jsonl')))
  assert [text.document.text for text in texts] == ['one', 'two']
  assert not any(text.calls for text in texts)


def test_a_corpus_is_read_as_its_settings_say(tmp_path):
  file = tmp_path / 'plain.jsonl'
  file.write_text('{"text": "one", "id": "a"}\n{"id": "b"}\n{"text": "two", "id": "a"}\n'
                  '{"text": "three", "id": "c", "media": "a word"}\n')
  with pytest.raises(UserError, match='needs the field `text`'):
    list(read_texts(str(file)))
  config = CorpusConfig(skip_without_text=True, repeated_ids='drop')
  texts = list(read_texts(str(file), config))
  assert [text.document.text for text in texts] == ['one', 'three']
  assert training_data([str(file)], config) == texts


def test_a_folder_of_pages_is_a_corpus(tmp_path):
  (tmp_path / 'pages').mkdir()
  (tmp_path / 'pages' / 'one.md').write_text('# One\n\nThe first page.\n')
  check_source(str(tmp_path / 'pages'))
  text, = read_texts(str(tmp_path / 'pages'))
  assert 'The first page.' in text.document.text
  (tmp_path / 'empty').mkdir()
  for read in (check_source, lambda source: list(read_texts(source))):
    with pytest.raises(UserError, match='not the output folder of a finished annotation run'):
      read(str(tmp_path / 'empty'))


def test_reports_of_runs_in_a_folder_are_no_texts(tmp_path):
  cell, stages = tmp_path / 'grid/model/base/seed0', tmp_path / 'grid/stages'
  for folder, settings in ((cell, 'config.gin'), (stages / 'annotate-0a', 'run.json'),
                           (stages / 'finetune-1b', 'run.json')):
    folder.mkdir(parents=True)
    (folder / settings).write_text('')
    (folder / 'report.md').write_text('# Report\n\nA run.\n')
  (stages / 'annotate-0a/documents').mkdir()
  (tmp_path / 'grid/report.md').write_text('# A grid\n')
  for read in (check_source, lambda source: list(read_texts(source))):
    with pytest.raises(UserError, match=r'grid holds the folders of runs, .* texts; give a '
                       rf'run of annotate in it: {stages / "annotate-0a"}$'):
      read(str(tmp_path / 'grid'))
    with pytest.raises(UserError, match='model holds .*; no finished run of annotate is among'):
      read(str(tmp_path / 'grid/model'))


def test_of_a_task_the_targets_alone_are_learned(tokenizer):
  example = task_example(TaskRow('r', 'ab', 'cd'), tokenizer)
  assert example.token_ids == tokenizer.encode('ab') + tokenizer.encode('cd')
  assert example.loss_weights == [0.0, 0.0, 1.0, 1.0]


def test_ids_of_another_model_are_refused(tokenizer):
  with pytest.raises(UserError, match='r: the model has no token 5000'):
    task_example(TaskRow('r', '', [1, 5000]), tokenizer)


_REGISTRATION = """
import seqio
import tensorflow as tf

def examples(split, shuffle_files, seed=None):
  return tf.data.Dataset.from_tensor_slices(
      {'inputs': [[7], [8]], 'targets': [[5, 0, 6], [0, 0, 9]]})

vocabulary = seqio.PassThroughVocabulary(size=100)
features = {name: seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
            for name in ('inputs', 'targets')}
for name in ('one', 'other'):
  seqio.TaskRegistry.add(f'planted_{name}', seqio.FunctionDataSource(examples, splits=['train']),
                         preprocessors=[], output_features=features)
seqio.MixtureRegistry.add('planted_mixture', ['planted_one', 'planted_other'], default_rate=1.0)
"""


@pytest.mark.parametrize(('source', 'count'), [
  ('seqio:planted_tasks:planted_one', 2), ('seqio:planted_tasks:planted_mixture@train[:9]', 9),
])
def test_a_seqio_task_or_mixture_keeps_id_0(source, count, tokenizer, tmp_path, monkeypatch):
  pytest.importorskip('seqio')
  (tmp_path / 'planted_tasks.py').write_text(_REGISTRATION)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [*sys.path, str(tmp_path)])
  rows = list(read_texts(source))
  assert len(rows) == count
  assert {tuple(row.targets) for row in rows} == {(5, 0, 6), (0, 0, 9)}
  packed = pack([task_example(row, tokenizer) for row in rows], tokenizer, 64, False)
  learned = packed.target_tokens_RT[packed.loss_weights_RT > 0]
  assert learned.size == 3 * count and (learned == 0).sum() >= count


def test_a_module_without_the_task_is_named():
  pytest.importorskip('seqio')
  with pytest.raises(UserError, match='cannot read seqio:json:no_such_task'):
    list(read_texts('seqio:json:no_such_task'))


_LABELS = """
import seqio
import tensorflow as tf

def examples(split, shuffle_files, seed=None):
  return tf.data.Dataset.from_tensor_slices({'inputs': ['good', 'bad'], 'targets': [1, 0]})

features = {'inputs': seqio.Feature(seqio.PassThroughVocabulary(9), add_eos=False, rank=0,
                                    dtype=tf.string),
            'targets': seqio.Feature(seqio.PassThroughVocabulary(9), add_eos=False, rank=0,
                                     dtype=tf.int32)}
seqio.TaskRegistry.add('planted_labels', seqio.FunctionDataSource(examples, splits=['train']),
                       preprocessors=[], output_features=features)
"""


def test_labels_that_are_numbers_are_explained(tmp_path, monkeypatch):
  pytest.importorskip('seqio')
  (tmp_path / 'planted_labels.py').write_text(_LABELS)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [*sys.path, str(tmp_path)])
  with pytest.raises(UserError, match=r'`targets` of example 0 is .*1.*, which is neither text nor '
                                      'the ids of its tokens; add a preprocessor'):
    list(read_texts('seqio:planted_labels:planted_labels'))
