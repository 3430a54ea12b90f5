"""Tasks that TensorFlow Datasets has: sets with the features of its own, which are built here."""

import json

import jax
import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')

import tensorflow_datasets as tfds  # noqa: E402

from toolformer_jax import cli  # noqa: E402
from toolformer_jax.checkpoints.orbax import save_model  # noqa: E402
from toolformer_jax.evaluation.config import EvaluationConfig  # noqa: E402
from toolformer_jax.evaluation.files import MissingDataError  # noqa: E402
from toolformer_jax.evaluation.tasks import TASKS, load_examples, load_split  # noqa: E402
from toolformer_jax.evaluation.tasks.classification import (  # noqa: E402
  NEWS_TOPICS,
  SENTIMENTS,
)

ARTICLE = 'The  tower fell. Nobody\nwas hurt.'


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A set that its module in tfds would read from the same folder."""

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split) for split in ('train', 'validation', 'test')}

  def _generate_examples(self, split):
    for i in range(6):
      yield i, self.row(split, i)

  def _features(self, **features):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))


class Glue(_Builder, skip_registration=True):
  """GLUE, of which SST-2 is a part; the labels of its test split are not public."""

  VERSION = tfds.core.Version('2.0.0')
  BUILDER_CONFIGS = (tfds.core.BuilderConfig(name='sst2'),)

  def _info(self):
    return self._features(sentence=tfds.features.Text(), idx=np.int32,
                          label=tfds.features.ClassLabel(names=['negative', 'positive']))

  @staticmethod
  def row(split, i):
    return {'sentence': f'a {"fine" if i % 2 else "poor"} film {split}', 'idx': i,
            'label': -1 if split == 'test' else i % 2}


class AgNewsSubset(_Builder, skip_registration=True):
  """AG News."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return self._features(title=tfds.features.Text(), description=tfds.features.Text(),
                          label=tfds.features.ClassLabel(num_classes=4))

  @staticmethod
  def row(split, i):
    return {'title': f'Title {i}', 'description': f'What was  {split}.', 'label': i % 4}


class Xsum(_Builder, skip_registration=True):
  """XSum."""

  VERSION = tfds.core.Version('1.1.0')

  def _info(self):
    return self._features(document=tfds.features.Text(), summary=tfds.features.Text())

  @staticmethod
  def row(split, i):
    return {'document': f'{ARTICLE} {split} {i}', 'summary': f'A tower fell in {i}.'}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  path = tmp_path_factory.mktemp('tfds')
  for builder in (Glue(data_dir=path, config='sst2'), AgNewsSubset(data_dir=path),
                  Xsum(data_dir=path)):
    builder.download_and_prepare()
  return f'tfds:{path}'


def examples(name, data_dir):
  return {(one.prompt, one.answers, one.labels, one.baseline)
          for one in load_examples(TASKS[name], data_dir, EvaluationConfig())}


def test_questions_are_those_of_the_rows(prepared):
  assert examples('sst2', prepared) == {
      (f'a {"fine" if i % 2 else "poor"} film validation\nSentiment:', (SENTIMENTS[i % 2],),
       SENTIMENTS, '') for i in range(6)}
  assert examples('ag_news_subset', prepared) == {
      (f'Title {i}. What was test.\nTopic:', (NEWS_TOPICS[i % 4],), NEWS_TOPICS, '')
      for i in range(6)}
  assert examples('xsum', prepared) == {
      (f'The tower fell. Nobody was hurt. test {i}\nTL;DR:', (f'A tower fell in {i}.',), (),
       'The tower fell.') for i in range(6)}
  for name in ('sst2', 'ag_news_subset', 'xsum'):
    found = load_split(TASKS[name], prepared, 'train')
    assert len(found) == 6 and all('train' in one.prompt for one in found)


def test_a_task_that_tfds_lacks_is_not_read_from_files(prepared, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'train.csv').write_text('text,category\na,b\n')
  with pytest.raises(MissingDataError, match='tfds has no Banking77: fetch train.csv'):
    load_examples(TASKS['banking77'], 'tfds:', EvaluationConfig())


def test_labels_are_those_of_tfds(tmp_path):
  for name, labels in (('glue/sst2', SENTIMENTS), ('ag_news_subset', NEWS_TOPICS)):
    assert tuple(tfds.builder(name, data_dir=tmp_path).info.features['label'].names) == labels


@pytest.fixture
def folder(tmp_path, monkeypatch, make_model):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  save_model(tmp_path / 'model', make_model(embed_dim=64, mlp_dim=128, max_positions=256))
  (tmp_path / 'data').mkdir()
  yield tmp_path
  jax.config.update('jax_compilation_cache_dir', None)


def test_a_task_of_tfds_is_learned_and_asked(folder, prepared, capsys):
  assert cli.main(['finetune', '--task', 'sst2', '--data_dir', prepared, '--checkpoint', 'model',
                   '--output_dir', 'tuned', '--gin.FinetuneConfig.steps=40',
                   '--gin.FinetuneConfig.batch_size=8', '--gin.FinetuneConfig.row_tokens=128',
                   '--gin.FinetuneConfig.learning_rate=0.01',
                   '--gin.FinetuneConfig.save_every=40']) == 0
  assert cli.main(['evaluate', '--tasks', 'sst2,ag_news_subset', '--data_dir', prepared, '--arms',
                   'toolformer=tuned', '--output_dir', 'scores']) == 0
  assert '6 questions of tfds:glue/sst2 (split: validation)' in capsys.readouterr().out
  summary = json.loads((folder / 'scores/summary.json').read_text())
  assert summary['label_metrics']['sst2']['toolformer']['f1'] == 100.0
  assert 'ag_news_subset' in summary['label_metrics']


@pytest.mark.parametrize('command', [
  ('finetune', '--task', 'sst2', '--checkpoint', 'model'),
  ('evaluate', '--tasks', 'sst2', '--arms', 'base=model')])
@pytest.mark.parametrize(('data_dir', 'message'), [
  ('data', 'TensorFlow Datasets has it as glue/sst2: give --data_dir tfds:'),
  ('tfds:model/config.json', 'tfds cannot load glue/sst2: '),
  ('tfds:model/config.json', 'copy the folder of a machine that has prepared it')])
def test_what_is_missing_is_said_in_a_line(folder, capsys, command, data_dir, message):
  assert cli.main([*command, '--data_dir', data_dir, '--output_dir', 'out']) == 2
  err = capsys.readouterr().err.splitlines()
  assert message in err[-1] and sum(line.startswith('error:') for line in err) == 1
  assert not any('Traceback' in line for line in err)
