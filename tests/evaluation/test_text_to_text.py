"""Tasks of writing: their official files are read, and they are scored beside their baselines."""

import gzip
import json

import pytest

import toolformer_jax as tf_jax
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.evaluation.task import TextTask
from toolformer_jax.evaluation.tasks import TASKS, load_examples, load_split, load_task

# Of files; those of TensorFlow Datasets alone are in tests/parity.
TEXT_TASKS = [name for name, task in TASKS.items() if isinstance(task, TextTask) and name != 'xsum']
POSTS = '@ann\tO\nin\tO\nNew\tB-location\nYork\tI-location\nwith\tO\nBo\tB-person\n\nhi\tO\n'


@pytest.fixture
def files(tmp_path):
  """Returns small files in the official formats."""
  def write(name, text):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith('.gz') else text.encode())
  write('wnut17/emerging.test.annotated.gz', POSTS)
  write('wnut17/wnut17train.conll', POSTS)
  numbers = range(10)
  write('flores200/flores-dev.de-en.de', ''.join(f'Satz {i}.\n' for i in numbers))
  write('flores200/flores-dev.de-en.en', ''.join(f'Sentence {i}.\n' for i in numbers))
  paper = {'source': ['We do it.', 'It works\n well.'], 'target': ['It works.', 'Done.']}
  for split in 'train', 'test':
    write(f'scitldr/{split}.jsonl', json.dumps(paper) + '\n')
  turns = [{'speaker': speaker, 'utterance': f'{speaker} {i}'}
           for i, speaker in enumerate(['USER', 'SYSTEM'] * 5)]
  write('sgd/dialogues_001.json.gz', json.dumps([{'turns': turns}] * 5))
  qa = {'question': 'Who?', 'id': '1', 'answers': [{'text': 'Ann'}, {'text': 'Ann'}]}
  write('xquad/xquad.en.json', json.dumps(
      {'data': [{'paragraphs': [{'context': 'Ann did it.', 'qas': [qa]}]}]}))
  return tmp_path


def _questions(name, files):
  return load_examples(TASKS[name], files, EvaluationConfig())


def _train(name, files):
  return load_split(TASKS[name], files, 'train')


def test_entities_are_written_with_their_types(files):
  first, second = _questions('wnut17', files)
  assert first.prompt == '@ann in New York with Bo\nEntities:'
  assert first.answers == ('location: New York; person: Bo',)
  assert second.answers == ('none',)


@pytest.mark.parametrize(('tags', 'entities'), [
  (['B-person', 'I-person', 'B-person'], 'person: w0 w1; person: w2'),
  (['B-person', 'O', 'I-person'], 'person: w0; person: w2'),
  (['B-person', 'I-group', 'I-group'], 'person: w0; group: w1 w2'),
  (['I-group', 'O', 'O'], 'group: w0')])
def test_entities_end_where_conlleval_ends_them(tmp_path, tags, entities):
  (tmp_path / 'wnut17').mkdir()
  lines = ''.join(f'w{number}\t{tag}\n' for number, tag in enumerate(tags))
  # The official training file has a line of a tab alone between posts.
  (tmp_path / 'wnut17/wnut17train.conll').write_text(f'{lines}\t\nhi\tO\n')
  first, second = _train('wnut17', tmp_path)
  assert first.answers == (entities,) and second.prompt == 'hi\nEntities:'


def test_lines_are_in_one_split_and_the_source_is_the_baseline(files):
  test, train = _questions('flores200', files), _train('flores200', files)
  assert [one.answers[0] for one in test] == ['Sentence 4.', 'Sentence 9.']
  assert len(train) == 8 and not {one.prompt for one in test} & {one.prompt for one in train}
  assert test[0].prompt == 'Satz 4.\nEnglish:' and test[0].baseline == 'Satz 4.'
  assert test[0].group == 'de'
  assert '(split: every fifth line of dev)' in load_task(
      TASKS['flores200'], files, EvaluationConfig()).source()


def test_sources_and_translations_of_unequal_number_are_refused(files):
  with (files / 'flores200/flores-dev.de-en.en').open('a') as file:
    file.write('One more.\n')
  for read in _questions, _train:
    with pytest.raises(UserError, match='flores200: not in the official format of FLORES-200'):
      read('flores200', files)


def test_every_language_has_metrics_of_its_own(files):
  pytest.importorskip('sacrebleu')
  for end in 'fr', 'en':
    (files / f'flores200/flores-dev.fr-en.{end}').write_text(
        ''.join(f'The same line, number {i}.\n' for i in range(10)))
  questions, task = _questions('flores200', files), TASKS['flores200']
  records = [{'id': one.id, 'group': one.group, 'extracted': one.answers[0], 'correct': True,
              'answers': one.answers, 'calls': []} for one in questions]
  result = EvaluationResult()
  result.add_task(task, {'base': records}, EvaluationConfig(bootstrap_samples=20), questions)
  assert [*result.text_metrics] == ['flores200', 'flores200.de', 'flores200.fr']
  copied = {name: found[task.baseline]['BLEU'].value
            for name, found in result.text_metrics.items()}
  assert copied['flores200.fr'] == pytest.approx(100)  # its sources are their translations
  assert copied['flores200.de'] < copied['flores200'] < 100
  assert all(found['base']['chrF'].value == pytest.approx(100)
             for found in result.text_metrics.values())


def test_papers_have_several_summaries_and_a_lead(files):
  paper, = _questions('scitldr', files)
  assert paper.prompt == 'We do it. It works well.\nTL;DR:'
  assert paper.answers == ('It works.', 'Done.') and paper.baseline == 'We do it.'


def test_turns_of_the_system_come_after_those_before(files):
  test, train = _questions('sgd', files), _train('sgd', files)
  assert len(test) == 5 and len(train) == 20  # one dialogue of five is of the test split
  assert test[0].prompt == 'User: USER 0\nSystem:' and test[0].answers == ('SYSTEM 1',)
  # At most six turns are shown.
  assert test[-1].prompt.splitlines()[0] == 'System: SYSTEM 3'
  assert len(test[-1].prompt.splitlines()) == 7


def test_xquad_is_for_evaluation_alone(files):
  question, = _questions('xquad_en', files)
  assert question.prompt == 'Ann did it.\nQuestion: Who?\nAnswer:' and question.answers == ('Ann',)
  with pytest.raises(UserError, match='no training split'):
    _train('xquad_en', files)


@pytest.mark.parametrize('name', TEXT_TASKS)
def test_they_are_scored_beside_their_baselines(make_model, files, name, tmp_path):
  task = TASKS[name]
  result = tf_jax.evaluate(
      [name], arms={'base': make_model(max_positions=512)}, data_dir=files,
      output_dir=tmp_path / 'out', config=EvaluationConfig(bootstrap_samples=20))
  found = result.text_metrics[name]
  assert [*found] == ['base', *([task.baseline] if task.baseline else [])]
  assert all([*metrics] == [*task.metrics] for metrics in found.values())
  assert '## Written texts' in result.report and task.metrics[0] in result.report
  assert 'Percentage of correct answers' not in result.report  # hardly a text equals a reference
  if task.baseline:
    assert 0 < found[task.baseline][task.metrics[-1]].value < 100
