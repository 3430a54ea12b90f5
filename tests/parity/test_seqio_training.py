"""Tasks of seqio as training data: ids are shifted back, streams resume where they were."""

import importlib
import itertools
import json
import sys

import pytest

pytest.importorskip('seqio')

import jax  # noqa: E402
import numpy as np  # noqa: E402

import toolformer_jax as tf_jax  # noqa: E402
from toolformer_jax.data.augmentation import AugmentationConfig  # noqa: E402
from toolformer_jax.data.hub_datasets import open_task, task_examples  # noqa: E402
from toolformer_jax.errors import UserError  # noqa: E402
from toolformer_jax.tokenizer import Tokenizer  # noqa: E402
from toolformer_jax.training import trainer  # noqa: E402
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig  # noqa: E402
from toolformer_jax.training.examples import make_examples, task_example  # noqa: E402
from toolformer_jax.training.sources import read_texts  # noqa: E402

TEXTS = ['a! b', '!!', 'é -> [x]']

_REGISTRATION = """
import pathlib
import seqio
import tensorflow as tf
from toolformer_jax.data.seqio_vocabulary import ShiftedVocabulary
from toolformer_jax.tokenizer import Tokenizer

def texts(split, shuffle_files, seed=None):
  return tf.data.Dataset.from_tensor_slices({'inputs': ['Say it!'] * 3, 'targets': %s})

def labels(split, shuffle_files, seed=None):
  return tf.data.Dataset.from_tensor_slices({'targets': [1, 2]})

def add(name, feature, preprocessors, fields=('inputs', 'targets'), source=texts, sizes=None):
  seqio.TaskRegistry.add(
      name, source=seqio.FunctionDataSource(source, ['train'], num_input_examples=sizes),
      preprocessors=preprocessors, output_features={field: feature for field in fields})

decoded = []

def many(split, shuffle_files, seed=None):
  return tf.data.Dataset.range(700).map(lambda i: {'targets': tf.strings.as_string(i)})

def more(split, shuffle_files, seed=None):
  return tf.data.Dataset.range(1000, 1700).map(lambda i: {'targets': tf.strings.as_string(i)})

@seqio.map_over_dataset
def noted(example):
  def note(text):
    decoded.append(text)
    return text
  example['targets'] = tf.py_function(note, [example['targets']], tf.string)
  example['targets'].set_shape([])
  return example

ours = ShiftedVocabulary(Tokenizer.load(pathlib.Path('tokenizer')))
tokenize = [seqio.preprocessors.tokenize]
add('kept_ours', seqio.Feature(ours, add_eos=False), tokenize)
add('kept_bytes', seqio.Feature(seqio.ByteVocabulary(), add_eos=False), tokenize)
text = seqio.Feature(seqio.PassThroughVocabulary(1), add_eos=False, dtype=tf.string, rank=0)
add('kept_text', text, [])
label = seqio.Feature(seqio.PassThroughVocabulary(9), add_eos=False, dtype=tf.int32, rank=0)
add('kept_labels', label, [], ['targets'], labels)
for name, source in ('kept_many', many), ('kept_more', more):
  add(name, seqio.Feature(ours, add_eos=False),
      [noted, *tokenize, seqio.CacheDatasetPlaceholder()], ['targets'], source, {'train': 700})
seqio.MixtureRegistry.add('kept_mixed', [('kept_many', 3.0), ('kept_more', 1.0)])
seqio.MixtureRegistry.add('kept_mixture', ['kept_ours'], default_rate=1.0)
"""


@pytest.fixture(scope='module')
def module(tokenizer, tmp_path_factory):
  """The module that registers the tasks can be imported."""
  path = tmp_path_factory.mktemp('tasks')
  (path / 'tokenizer').mkdir()
  tokenizer.save(path / 'tokenizer')
  (path / 'kept_tasks.py').write_text(_REGISTRATION % TEXTS, 'utf-8')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(path)
    patch.setattr(sys, 'path', [*sys.path, str(path)])
    yield 'seqio:kept_tasks'


@pytest.mark.parametrize('name', ['kept_ours', 'kept_mixture@train[:3]', 'kept_text'])
def test_a_task_is_trained_on_the_ids_of_its_texts(module, name, tokenizer):
  # `!` is token 0.
  assert tokenizer.encode('!') == [0]
  examples = [task_example(row, tokenizer) for row in read_texts(f'{module}:{name}')]
  inputs = tokenizer.encode('Say it!')
  assert [example.token_ids for example in examples] == [
      inputs + tokenizer.encode(text) for text in TEXTS]
  for example in examples:
    assert example.loss_weights[:len(inputs)] == [0.0] * len(inputs)
    assert all(example.loss_weights[len(inputs):])


def test_ids_of_another_vocabulary_are_refused(module):
  with pytest.raises(UserError, match='kept_bytes: its feature `inputs` has token ids of '
                                      'ByteVocabulary'):
    list(read_texts(f'{module}:kept_bytes'))


def test_numbers_are_no_targets(module):
  with pytest.raises(UserError, match='of example 0 is .*, which is neither text nor the ids'):
    list(read_texts(f'{module}:kept_labels'))


def test_our_vocabulary_with_another_models_tokens_is_refused(module):
  other = Tokenizer.byte_level_bpe(['a', 'b'], [], ['<|endoftext|>'], split_digits=True,
                                   bos_id=None, eos_id=None)
  with pytest.raises(UserError, match='kept_ours-0: the vocabulary of its task has the tokens of '):
    make_examples([*read_texts(f'{module}:kept_ours')], other, None)


def _stream(source, seed, start, count):
  rows = task_examples(source, open_task(source), seed, start)
  return [tuple(row['targets'].tolist()) for row in itertools.islice(rows, count)]


@pytest.mark.parametrize('name', ['kept_many', 'kept_mixed', 'kept_many@train[:500]', 'kept_ours'])
def test_a_stream_goes_on_anywhere_and_decodes_nothing_before(module, name):
  source = f'{module}:{name}'
  decoded = importlib.import_module('kept_tasks').decoded
  whole = _stream(source, 5, 0, 3000)  # more than an epoch
  for start in 1, 499, 650, 2900:
    decoded.clear()
    assert _stream(source, 5, start, 100) == whole[start:start + 100]
  if '[' not in name:  # of a few examples
    assert len(decoded) < 1000  # tf.data reads ahead


def test_a_stream_of_a_mixture_has_its_rates(module):
  drawn, number = _stream(f'{module}:kept_mixed', 0, 0, 20_000), 20_000
  many = {*_stream(f'{module}:kept_many', 0, 0, 700)}
  assert len(many) == 700
  assert abs(sum(ids in many for ids in drawn) / number - 0.75) < 0.01
  assert drawn[:100] != _stream(f'{module}:kept_mixed', 1, 0, 100)


SETTINGS = FinetuneConfig(steps=9, save_every=3, row_tokens=32, learning_rate=1e-2,
                          stream_buffer=20)


def _metrics(folder):
  lines = (folder / 'metrics.jsonl').read_text('utf-8').splitlines()
  return [(line['step'], line['loss'], line['tokens']) for line in map(json.loads, lines)]


@pytest.mark.parametrize('batch', [{'batch_rows': 2}, {'batch_size': 7}])
@pytest.mark.parametrize('name', ['kept_mixed', 'kept_many'])
def test_a_killed_run_on_a_stream_ends_with_the_same_bits(
    module, make_model, tmp_path, monkeypatch, batch, name):
  def train(folder):
    return tf_jax.finetune(make_model(), f'{module}:{name}', output_dir=tmp_path / folder,
                           config=FinetuneConfig(**{**vars(SETTINGS), **batch}))
  whole = train('whole')
  with monkeypatch.context() as patch:
    draw = trainer.batch_picks
    def dying(*arguments):
      yield from itertools.islice(draw(*arguments), 7)
      raise KeyboardInterrupt
    patch.setattr(trainer, 'batch_picks', dying)
    with pytest.raises(KeyboardInterrupt):
      train('killed')
  again = train('killed')
  assert _metrics(tmp_path / 'killed') == _metrics(tmp_path / 'whole')
  equal = jax.tree.map(np.array_equal, again.model.variables, whole.model.variables)
  assert all(jax.tree.leaves(equal))
  assert 'a stream of texts' in whole.summary()
  stream = json.loads((tmp_path / 'whole/run.json').read_text())['configuration']['stream']
  assert (stream['task'], stream['split'], stream['seed'], stream['buffer']) == (
      name, 'train', 0, 20)
  assert [*stream['files_sha256']] == [*stream['rates']] and stream['cached'] is False


@pytest.mark.parametrize(('options', 'message'), [
  ({'config': FinetuneConfig(epochs=2.0)}, 'FinetuneConfig.epochs needs the number of texts'),
  ({'mixture': MixtureConfig(rates={'QA': 2.0})}, 'a seqio.Mixture has its own rates'),
  ({'mixture': MixtureConfig(augmentation=AugmentationConfig())}, 'augmentation is of texts in '),
  ({'without_calls': True}, '--without_calls cannot change a task of seqio'),
])
def test_what_a_stream_cannot_do_is_said_first(module, make_model, tmp_path, options, message):
  with pytest.raises(UserError, match=message):
    tf_jax.finetune(make_model(), f'{module}:kept_ours', output_dir=tmp_path / 'run', **options)
  assert not (tmp_path / 'run').exists()
