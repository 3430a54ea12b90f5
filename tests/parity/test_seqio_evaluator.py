"""`seqio.Evaluator` with our engine and a calculator: the numbers of `toolformer evaluate`."""

import json

import pytest

pytest.importorskip('seqio')

import seqio  # noqa: E402

import toolformer_jax as tf_jax  # noqa: E402
from toolformer_jax.evaluation.seqio_evaluator import (  # noqa: E402
  QuestionFeatureConverter,
  make_predict_fn,
)
from toolformer_jax.evaluation.tasks import TASKS, load_examples  # noqa: E402
from toolformer_jax.evaluation.tasks.seqio_tasks import register  # noqa: E402
from toolformer_jax.inference.config import GenerationConfig  # noqa: E402
from toolformer_jax.tools.executor import Executor  # noqa: E402
from toolformer_jax.tools.registry import Toolbox, build_tools  # noqa: E402
from toolformer_jax.training.config import FinetuneConfig  # noqa: E402
from toolformer_jax.training.finetune import finetune_examples  # noqa: E402
from toolformer_jax.training.packing import Example  # noqa: E402

from .seqio_cache import cache  # noqa: E402

SVAMP, SETTINGS = TASKS['svamp'], tf_jax.EvaluationConfig(number_tokens=6)
GENERATION, ENGINE = GenerationConfig(top_k_api=1), tf_jax.EngineConfig(slots=8)
LIMIT = 100


@pytest.fixture(scope='module')
def taught(make_model, data_dir, tmp_path_factory):
  """A model that has learned six of the questions by heart, with calls."""
  model = make_model(embed_dim=64, mlp_dim=128, max_positions=1024)
  def example(question):
    answer = question.answers[0]
    pieces = (question.prompt, f' [Calculator({answer} + 0) ->', f' {answer}]', f' {answer}.')
    ids = [token for piece in pieces for token in model.tokenizer.encode(piece)]
    return Example(ids, [1.0] * len(ids))
  questions = load_examples(SVAMP, data_dir, SETTINGS, LIMIT)
  config = FinetuneConfig(steps=120, batch_size=6, row_tokens=512, learning_rate=1e-2,
                          save_every=120)
  return finetune_examples(
      model=model, examples=[example(question) for question in questions[:6]], config=config,
      output_dir=tmp_path_factory.mktemp('taught'), depends_on={})


@pytest.fixture(scope='module')
def predictions(taught, data_dir, tmp_path_factory):
  """The scored predictions of `evaluate`."""
  path = tmp_path_factory.mktemp('evaluation')
  tf_jax.evaluate(
      'svamp', arms={'toolformer': taught}, data_dir=data_dir, tools='calculator', limit=LIMIT,
      output_dir=path, config=SETTINGS, generation_config=GENERATION, engine_config=ENGINE)
  lines = (path / 'predictions/svamp.toolformer.jsonl').read_text('utf-8').splitlines()
  return [json.loads(line) for line in lines], json.loads((path / 'summary.json').read_text())


@pytest.fixture(scope='module')
def evaluate(taught, data_dir):
  """Returns a function that evaluates with seqio; it returns the accuracy and the texts."""
  name, = register([SVAMP], data_dir, SETTINGS, taught.tokenizer)
  task = seqio.TaskRegistry.get(name)
  def run(use_cached=False):
    evaluator = seqio.Evaluator(name, QuestionFeatureConverter(), eval_split='test',
                                num_examples=LIMIT, use_cached=use_cached, logger_cls=())
    with Executor(build_tools(['calculator'], Toolbox())) as executor:
      predict_fn = make_predict_fn(
          taught, SVAMP, SETTINGS, executor=executor, tool_names=['Calculator'],
          generation=GENERATION, engine_config=ENGINE)
      outputs = []
      def keeping(dataset):
        outputs.extend(predict_fn(dataset))
        return outputs
      metrics, _ = evaluator.evaluate(compute_metrics=True, step=0, predict_fn=keeping)
      vocabulary = task.output_features['targets'].vocabulary
      return (metrics.result()[name]['accuracy'],
              [vocabulary.decode(ids) for _, ids in sorted(outputs)])
  yield run
  seqio.TaskRegistry.remove(name)  # Other tests register their own task of this name.


def test_the_numbers_are_those_of_evaluate(evaluate, predictions):
  records, summary = predictions
  accuracy, texts = evaluate()
  assert texts == [record['prediction'] for record in records] and len(texts) == LIMIT
  assert accuracy == pytest.approx(100 * sum(record['correct'] for record in records) / LIMIT)
  score, = summary['scores']
  assert accuracy == pytest.approx(score['value'])
  # It did call its tool, and some answers are right.
  assert sum(bool(record['calls']) for record in records) >= 6 and accuracy > 0


def test_cached_equals_uncached(evaluate, tmp_path):
  uncached = evaluate()
  cache(seqio.TaskRegistry.get('toolformer_svamp'), tmp_path, 'test')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(seqio.TaskRegistry.get('toolformer_svamp'), '_cache_dir', None)
    seqio.add_global_cache_dirs([str(tmp_path)])
    assert evaluate(use_cached=True) == uncached
