"""Classification: the likeliest label by the model's own probabilities, and its metrics."""

import dataclasses
import functools
import json
import math
import pathlib

import jax
import numpy as np
import pytest
from sklearn.metrics import f1_score

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.checkpoints.adapters.save import save_adapter
from toolformer_jax.checkpoints.orbax import save_model
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import MissingDataError
from toolformer_jax.evaluation.label_metrics import Confusion, label_metrics
from toolformer_jax.evaluation.label_scoring import (
  check_ensemble,
  predict_labels,
  target_text,
)
from toolformer_jax.evaluation.task import Question
from toolformer_jax.evaluation.tasks import TASKS, load_examples
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.adapter_stack import stack_adapters
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.training.adapters import add_adapter
from toolformer_jax.training.config import FinetuneConfig

LABELS = ('card', 'card lost', 'top up')
QUESTIONS = [Question(str(number), f'{text}\nIntent:', (LABELS[0],), labels=LABELS)
             for number, text in enumerate(('Where is it?', 'I lost my card', 'Money!'))]


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(max_positions=512)


@functools.partial(jax.jit, static_argnums=0)
def _logprobs(decoder, variables, tokens_1T):
  return jax.nn.log_softmax(decoder.apply(variables, tokens_1T)[0][0])


def label_logprob(model, prompt, label):
  """Returns log p(label | prompt), of a sequence alone; causality hides the padding."""
  tokenizer = model.tokenizer
  start = [] if tokenizer.start_id is None else [tokenizer.start_id]
  prompt, target = [*start, *tokenizer.encode(prompt)], tokenizer.encode(target_text(label))
  tokens_1T = np.zeros((1, 64), np.int32)
  tokens_1T[0, :len(prompt) + len(target)] = [*prompt, *target]
  logprobs_TV = np.asarray(_logprobs(model.decoder, model.variables, tokens_1T))
  return sum(float(logprobs_TV[len(prompt) - 1 + i, token]) for i, token in enumerate(target))


def test_the_label_is_the_likeliest(model):
  found = predict_labels(model, QUESTIONS)
  for question, prediction in zip(QUESTIONS, found, strict=True):
    logprobs = {label: label_logprob(model, question.prompt, label) for label in LABELS}
    assert prediction.prediction == max(logprobs, key=logprobs.get)
    assert prediction.text == f' {prediction.prediction}\n'


def test_a_label_does_not_depend_on_the_other_questions(model):
  assert predict_labels(model, QUESTIONS) == [
      predict_labels(model, [question])[0] for question in QUESTIONS]


def test_calibration_subtracts_what_a_label_has_anyhow(model):
  empty = 'N/A\nIntent:'
  for question, prediction in zip(QUESTIONS, predict_labels(
      model, QUESTIONS, content_free_prompt=empty), strict=True):
    gains = {label: label_logprob(model, question.prompt, label)
             - label_logprob(model, empty, label) for label in LABELS}
    assert prediction.prediction == max(gains, key=gains.get)


def tuned(model, seed):
  """Returns the model with a random adapter."""
  tuned = add_adapter(model, FinetuneConfig(adapter=LoraConfig(rank=2)))
  rng = np.random.default_rng(seed)
  weights = jax.tree.map(
      lambda x: jax.device_put((x + rng.normal(0, 0.2, x.shape)).astype(np.float32), x.sharding),
      tuned.variables[ADAPTER])
  return dataclasses.replace(tuned, variables=tuned.variables | {ADAPTER: weights})


@pytest.mark.parametrize('empty', ['', 'N/A\nIntent:'])
def test_an_ensemble_averages_the_scores_of_its_adapters(model, empty):
  alone = [tuned(model, seed) for seed in range(3)]
  stack = stack_adapters(model, {f'seed {i}': one for i, one in enumerate(alone)})
  found = predict_labels(stack, QUESTIONS, content_free_prompt=empty, ensemble=True)
  for question, prediction in zip(QUESTIONS, found, strict=True):
    means = {label: np.mean([
        label_logprob(one, question.prompt, label) - (label_logprob(one, empty, label) if empty
                                                      else 0) for one in alone])
             for label in LABELS}
    assert prediction.prediction == max(means, key=means.get)
  one = stack_adapters(model, {'only': alone[0]})
  assert predict_labels(one, QUESTIONS, ensemble=True) == predict_labels(alone[0], QUESTIONS)
  assert predict_labels(model, QUESTIONS, ensemble=True) == predict_labels(model, QUESTIONS)
  with pytest.raises(UserError, match='adapters by name'):
    check_ensemble([model])


def test_a_prompt_that_is_too_long_is_a_failure_alone(model):
  long = Question('long', 'x' * 2000, ('card',), labels=LABELS)
  first, second = predict_labels(model, [long, QUESTIONS[0]])
  assert 'too many' in first.failure and first.prediction == ''
  assert second == predict_labels(model, QUESTIONS[:1])[0]


def test_metrics_are_those_of_scikit_learn_and_mistakes_are_counted():
  rng = np.random.default_rng(0)
  true = [LABELS[i] for i in rng.integers(0, 3, 200)]
  predicted = [one if rng.random() < 0.7 else LABELS[rng.integers(0, 3)] for one in true]
  predicted[0] = ''  # a prompt that was too long
  records = [{'answers': (a,), 'extracted': b} for a, b in zip(true, predicted, strict=True)]
  found = label_metrics(records, samples=200, seed=0)
  assert found.f1 == pytest.approx(100 * f1_score(true, predicted, labels=LABELS, average='macro'))
  assert found.low < found.f1 < found.high < 100
  assert sum(one.count for one in found.confusions) == sum(
      a != b for a, b in zip(true, predicted, strict=True))
  assert found.confusions[0].count >= found.confusions[-1].count
  perfect = label_metrics([{'answers': ('a',), 'extracted': 'a'}] * 5, samples=10, seed=0)
  assert (perfect.f1, perfect.confusions) == (100.0, ())
  one = label_metrics([{'answers': ('a',), 'extracted': 'b'}], samples=10, seed=0)
  assert one.confusions == (Confusion('a', 'b', 1),) and one.f1 == 0


@pytest.mark.parametrize(('name', 'counts', 'labels'), [
  ('banking77', {'': 3080}, 77), ('clinc150', {'': 5500}, 151),
  ('sib200', dict.fromkeys(('en', 'zh', 'de', 'es', 'hi'), 204), 7),
])
def test_the_real_data(data_dir, name, counts, labels):
  try:
    questions = load_examples(TASKS[name], data_dir, EvaluationConfig())
  except MissingDataError as error:
    pytest.skip(str(error))
  groups = [question.group for question in questions]
  assert {group: groups.count(group) for group in {*groups}} == counts
  assert len(questions[0].labels) == labels
  # The first questions, which --limit takes, have all labels, though the files are sorted by them.
  first = questions[:len(questions) // 4]
  assert len({question.answers[0] for question in first}) > 0.95 * labels
  for question in questions:
    assert question.answers[0] in question.labels and '_' not in question.answers[0]
    assert question.prompt.count('\n') == 1 and question.prompt.endswith(('Intent:', 'Topic:'))


@pytest.fixture
def folder(tmp_path, monkeypatch, make_model):
  """A small model, and a set of two intents in the format of Banking77."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  save_model(tmp_path / 'model', make_model(embed_dim=64, mlp_dim=128, max_positions=256))
  (tmp_path / 'data/banking77').mkdir(parents=True)
  for split, count in (('train', 24), ('test', 6)):
    rows = [f'{"lost my card" if n % 2 else "top up now"} {n},{"card_lost" if n % 2 else "top_up"}'
            for n in range(count)]
    (tmp_path / f'data/banking77/{split}.csv').write_text('\n'.join(['text,category', *rows]))
  return tmp_path


def test_a_model_learns_a_task_and_is_asked_the_same(folder, capsys):
  data = ['--data_dir', 'data']
  assert cli.main(['finetune', '--task', 'banking77', *data, '--checkpoint', 'model',
                   '--output_dir', 'tuned', '--gin.FinetuneConfig.steps=40',
                   '--gin.FinetuneConfig.batch_size=8', '--gin.FinetuneConfig.row_tokens=128',
                   '--gin.FinetuneConfig.learning_rate=0.01',
                   '--gin.FinetuneConfig.save_every=40']) == 0
  assert cli.main(['evaluate', '--tasks', 'banking77', *data, '--arms',
                   'base=model,toolformer=tuned', '--output_dir', 'scores']) == 0
  report = (folder / 'scores/report.md').read_text()
  assert '| Banking77 | Toolformer | 100.0 | 100.0 | 100.0 [100.0, 100.0] | - |' in report
  assert 'Banking77: the likeliest label. Prompt: `... / Intent:`' in report
  summary = json.loads((folder / 'scores/summary.json').read_text())
  assert summary['label_metrics']['banking77']['toolformer']['f1'] == 100.0
  assert math.isfinite(summary['label_metrics']['banking77']['base']['f1'])
  lines = (folder / 'scores/predictions/banking77.toolformer.jsonl').read_text().splitlines()
  found = {one['id']: one['prediction'] for one in map(json.loads, lines)}
  assert [found[f'banking77-test-{n:05}'] for n in range(6)] == ['top up', 'card lost'] * 3


@pytest.mark.parametrize('tasks', [
  ['--task', 'banking77', '--task', 'sib200'], ['--task', 'banking77', 'sib200']])
def test_all_tasks_that_are_named_are_learned(folder, capsys, tasks):
  (folder / 'data/sib200/eng_Latn').mkdir(parents=True)
  rows = [f'{n}\thealth\tThe doctor says {n}.' for n in range(10)]
  (folder / 'data/sib200/eng_Latn/train.tsv').write_text(
      '\n'.join(['index_id\tcategory\ttext', *rows]))
  assert cli.main(['finetune', *tasks, '--data_dir', 'data', '--checkpoint', 'model',
                   '--output_dir', 'tuned', '--gin.FinetuneConfig.steps=1',
                   '--gin.FinetuneConfig.row_tokens=128', '--gin.FinetuneConfig.batch_size=8',
                   '--gin.MixtureConfig.dev_texts=0']) == 0
  assert 'epochs of 34 texts' in capsys.readouterr().out


@pytest.fixture
def adapters(folder, make_model):
  """Folders of PEFT with adapters of the small model, as the options of an ensemble.

  There are twelve intents, which are equally long.
  """
  rows = [f'text {number} and {7 * number},{chr(97 + number % 12) * 2}' for number in range(24)]
  for split in ('train', 'test'):
    (folder / f'data/banking77/{split}.csv').write_text('\n'.join(['text,category', *rows]))
  base = make_model(embed_dim=64, mlp_dim=128, max_positions=256)
  for seed in range(3):
    save_adapter(folder / f'seed{seed}', tuned(base, seed), 'org/base')
  return [one for seed in range(3) for one in ('--adapter', f's{seed}=seed{seed}')]


def predictions(output_dir, arm):
  lines = pathlib.Path(output_dir, f'predictions/banking77.{arm}.jsonl').read_text().splitlines()
  return [json.loads(line)['prediction'] for line in lines]


def test_a_command_evaluates_an_ensemble_as_python_does(folder, capsys, adapters):
  command = ['evaluate', '--tasks', 'banking77', '--data_dir', 'data', '--checkpoint', 'model']
  arms = ['--arms', 'base=model,toolformer']
  assert cli.main([*command, *adapters, *arms, '--output_dir', 'scores']) == 0
  assert 'ensemble_adapters = True' in capsys.readouterr().out
  stack = tf_jax.load_model('model', adapters={f's{seed}': f'seed{seed}' for seed in range(3)})
  tf_jax.evaluate('banking77', arms={'base': 'model', 'toolformer': stack}, data_dir='data',
                  output_dir='by_hand', config=EvaluationConfig(ensemble_adapters=True))
  assert predictions('scores', 'toolformer') == predictions('by_hand', 'toolformer')
  assert cli.main([*command, '--arms', 'base', '--output_dir', 'alone']) == 0
  assert predictions('scores', 'base') == predictions('alone', 'base')
  assert predictions('scores', 'toolformer') != predictions('scores', 'base')
  # The saved configuration is the same evaluation.
  assert cli.main(['evaluate', '--gin_file', 'scores/config.gin', '--output_dir', 'again']) == 0
  assert predictions('again', 'toolformer') == predictions('scores', 'toolformer')


@pytest.mark.parametrize(('argv', 'message'), [
  (['--tasks', 'svamp'], 'svamp is no task of classification'),
  (['--tasks', 'banking77', '--arms', 'toolformer=model'], '--adapter has no effect'),
  (['--tasks', 'banking77', '--adapter', 'seed0'], 'each of several adapters needs a name'),
])
def test_what_no_ensemble_can_do_is_refused(folder, capsys, adapters, argv, message):
  assert cli.main(['evaluate', '--data_dir', 'data', '--checkpoint', 'model', *adapters,
                   '--output_dir', 'out', *argv]) == 2
  err = capsys.readouterr().err
  assert message in err and len(err.splitlines()) == 1
  assert not (folder / 'out').exists()


def test_an_ensemble_without_adapters_is_refused(folder, capsys):
  assert cli.main(['evaluate', '--data_dir', 'data', '--checkpoint', 'model', '--tasks',
                   'banking77', '--output_dir', 'out',
                   '--gin.EvaluationConfig.ensemble_adapters=True']) == 2
  assert '--adapter NAME=D' in capsys.readouterr().err and not (folder / 'out').exists()


@pytest.mark.parametrize(('argv', 'message'), [
  (['--task', 'svamp'], '--task svamp: only tasks of classification and of writing'),
  (['--task', 'bankin77'], "unknown task 'bankin77'"),
  (['--task', 'banking77', '--task', 'banking77'], '--task: banking77 occurs twice'),
  (['--data', 'no.jsonl', '--data', 'data'], 'there is no file no.jsonl'),
  ([], 'there is nothing to train on: give --data, or --task'),
  (['--task', 'clinc150', '--data_dir', 'data'], 'there is no folder data/clinc150'),
  (['--task', 'clinc150', '--data_dir', 'tfds:'], '--task clinc150: with --data_dir tfds: only'),
])
def test_what_cannot_be_trained_on_is_said_at_once(folder, capsys, argv, message):
  assert cli.main(['finetune', *argv, '--checkpoint', 'model', '--output_dir', 'out']) == 2
  err = capsys.readouterr().err
  assert message in err and len(err.splitlines()) == 1
  assert not (folder / 'out').exists()
