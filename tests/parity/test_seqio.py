"""The benchmarks through seqio and tfds: the same examples, metrics that count as we do."""

import json

import numpy as np
import pytest

pytest.importorskip('seqio')

import seqio  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_datasets as tfds  # noqa: E402

from toolformer_jax.data.seqio_vocabulary import SHIFT, ShiftedVocabulary  # noqa: E402
from toolformer_jax.evaluation.config import EvaluationConfig  # noqa: E402
from toolformer_jax.evaluation.files import MissingDataError  # noqa: E402
from toolformer_jax.evaluation.tasks import TASKS, load_examples  # noqa: E402
from toolformer_jax.evaluation.tasks.seqio_tasks import register  # noqa: E402

SETTINGS = EvaluationConfig()
PROBLEMS = [{'ID': f'c{i}', 'Body': f'Bo has {i}!', 'Question': 'Sum?', 'Answer': float(i)}
            for i in range(7)]


@pytest.fixture(scope='module')
def registered(tmp_path_factory, tokenizer):
  path = tmp_path_factory.mktemp('data')
  (path / 'svamp').mkdir()
  (path / 'svamp/SVAMP.json').write_text(json.dumps(PROBLEMS))
  (path / 'corpus').mkdir()
  (path / 'corpus/a.jsonl').write_text('{"text": "One is! one."}\n{"text": "Two."}\n')
  chosen = [TASKS['svamp'], TASKS['corpus']]
  names = register(chosen, path, SETTINGS, tokenizer)
  assert names == ['toolformer_svamp', 'toolformer_corpus']
  yield path
  for name in names:  # Other tests register their own tasks of these names.
    seqio.TaskRegistry.remove(name)


def test_examples_are_those_of_the_plain_reader(registered, tokenizer):
  dataset = seqio.get_mixture_or_task('toolformer_svamp').get_dataset(
      split='test', shuffle=False, sequence_length=None)
  examples = list(dataset.as_numpy_iterator())
  items = load_examples(TASKS['svamp'], registered, SETTINGS)
  assert len(examples) == len(items) == 7
  for example, item in zip(examples, items, strict=True):
    assert example['id'].decode() == item.id
    assert (example['inputs'] - SHIFT).tolist() == tokenizer.encode(item.prompt)


def test_no_token_is_lost_in_packing(tokenizer):
  # To seqio id 0 is padding: with this tokenizer, that would be `!`.
  vocabulary = ShiftedVocabulary(tokenizer)
  assert 0 in tokenizer.encode('a! b')
  ids = np.array(vocabulary.encode('a! b'))
  assert (ids > 0).all() and vocabulary.decode(ids) == 'a! b'
  assert vocabulary.encode_tf('é!').numpy().tolist() == list(vocabulary.encode('é!'))
  assert vocabulary.decode_tf(vocabulary.encode_tf('é!')).numpy().decode() == 'é!'
  text = tf.data.Dataset.from_tensors({'targets': 'a! b'})
  feature = seqio.Feature(vocabulary, add_eos=False)
  packed = seqio.trim_and_pack_dataset(
      seqio.preprocessors.tokenize(text, {'targets': feature}), {'targets': 8})
  row = next(packed.as_numpy_iterator())
  assert vocabulary.decode(row['targets']) == 'a! b'


def test_an_evaluator_counts_as_we_do(registered, tokenizer):
  vocabulary = ShiftedVocabulary(tokenizer)
  evaluator = seqio.Evaluator(
      'toolformer_svamp', seqio.EncDecFeatureConverter(pack=False), eval_split='test',
      logger_cls=())
  said = {i: f' {i} of them.' if i % 2 else ' none.' for i in range(7)}
  def predict(dataset):  # rows of one length, as from an accelerator
    rows = [(i, vocabulary.encode(said[i])) for i, _ in dataset.as_numpy_iterator()]
    return [(i, row + [vocabulary.pad_id] * (20 - len(row))) for i, row in rows]
  metrics, _ = evaluator.evaluate(compute_metrics=True, step=0, predict_fn=predict)
  assert metrics.result()['toolformer_svamp']['accuracy'] == pytest.approx(100 * 3 / 7)


def test_a_perplexity_is_of_a_token(registered, tokenizer):
  task = seqio.get_mixture_or_task('toolformer_corpus')
  texts = ['One is! one.', 'Two.']
  tokens = sum(len(tokenizer.encode(text)) for text in texts)
  metric, = task.metric_fns
  assert metric(texts, [-30.0, -6.0])['perplexity'] == pytest.approx(np.exp(36 / tokens))


@pytest.mark.parametrize('name', [
  'nq_open', 'webquestions', 'triviaqa', 'gsm8k', 'sst2', 'ag_news_subset', 'xsum'])
def test_sets_of_tfds_have_the_features_that_are_read(name):
  # The builders of tfds itself, which make up examples instead of fetching them: answers that are
  # numbers in the real data are random letters.
  policy = tfds.testing.MockPolicy.USE_CODE
  with tfds.testing.mock_data(num_examples=2, policy=policy):
    items = load_examples(TASKS[name], 'tfds:', EvaluationConfig(numeric_only=False))
  assert len(items) == 2 and all(item.prompt and item.answers for item in items)


def test_what_tfds_lacks_says_how_to_get_it():
  with pytest.raises(MissingDataError, match='tfds has no SVAMP: fetch SVAMP.json'):
    load_examples(TASKS['svamp'], 'tfds:', SETTINGS)
