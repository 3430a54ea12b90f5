"""`toolformer evaluate` from files to tables: resumed, extended, and with what is amiss."""

import dataclasses
import json
import os
import pathlib

import jax
import pytest

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.errors import UserError

from .conftest import PROBLEMS

WIKI = '\n = A page = \n \n One 40, two 2. Sum? \n = B page = \n \n Xi has 7. \n'


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
  """A working directory and a cache of their own, and the data of three benchmarks."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  write('svamp', 'SVAMP.json', json.dumps([problem for problem, _ in PROBLEMS]))
  write('wikitext2', 'wiki.valid.tokens', WIKI)
  return tmp_path


def write(task, name, text):
  path = pathlib.Path('data', task, name)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


@pytest.fixture
def evaluate(taught, capsys):
  """Runs the command; returns its exit code, standard output and error."""
  def evaluate(*extra, tasks='svamp', arms='base,disabled,toolformer', tools='calculator'):
    code = cli.main(['evaluate', '--checkpoint', taught, '--tasks', tasks, '--data_dir', 'data',
                     '--arms', arms, '--tools', tools, '--output_dir', 'out',
                     '--gin.GenerationConfig.top_k_api=1', '--gin.EngineConfig.slots=4',
                     '--gin.EvaluationConfig.number_tokens=6', *map(str, extra)])
    return code, *capsys.readouterr()
  return evaluate


def test_the_saved_configuration_alone_repeats_an_evaluation(evaluate, capsys):
  assert evaluate('--limit', 2, arms='toolformer')[0] == 0
  pathlib.Path('out').rename('before')
  assert cli.main(['evaluate', '--gin_file', 'before/config.gin']) == 0, capsys.readouterr().err
  for name in ('config.gin', 'predictions/svamp.toolformer.jsonl'):
    assert pathlib.Path('out', name).read_bytes() == pathlib.Path('before', name).read_bytes()


def predictions(arm, task='svamp'):
  lines = pathlib.Path(f'out/predictions/{task}.{arm}.jsonl').read_text().split('\n')
  return [json.loads(line) for line in lines if line]


def scores():
  summary = json.loads(pathlib.Path('out/summary.json').read_text())
  return {(score['task'], score['arm']): score for score in summary['scores']}


def computed():
  """What was computed, and when."""
  return {path: path.stat().st_mtime_ns for path in pathlib.Path('out/work').rglob('0*.jsonl')}


def test_arms_may_be_models_or_paths(taught):
  options = dict(data_dir='data', tools='calculator', limit=1,
                 engine_config=tf_jax.EngineConfig(slots=4),
                 config=tf_jax.EvaluationConfig(number_tokens=6),
                 generation_config=tf_jax.GenerationConfig(top_k_api=1))
  model = tf_jax.load_model(taught)
  unnamed = dataclasses.replace(model, source='')
  named = tf_jax.evaluate('svamp', arms={'base': taught, 'toolformer': taught}, **options)
  for arms in ({'base': pathlib.Path(taught), 'toolformer': model},
               {'base': unnamed, 'toolformer': unnamed}):
    assert tf_jax.evaluate(['svamp'], arms=arms, **options).predictions == named.predictions
  other = dataclasses.replace(unnamed, variables=jax.tree.map(lambda x: x * 2, model.variables))
  tf_jax.evaluate('svamp', arms={'base': unnamed}, output_dir='out', **options)
  with pytest.raises(UserError, match='made with another configuration: checkpoint'):
    tf_jax.evaluate('svamp', arms={'base': other}, output_dir='out', **options)
  half = tf_jax.load_model(taught, config=tf_jax.ModelConfig(dtype='bfloat16'))
  with pytest.raises(UserError, match='in different dtypes'):
    tf_jax.evaluate('svamp', arms={'base': taught, 'toolformer': half}, **options)
  with pytest.raises(UserError, match="unknown arm 'bas'"):
    tf_jax.evaluate('svamp', arms={'bas': taught}, **options)


def test_every_arm_answers_and_every_answer_can_be_looked_into(evaluate):
  code, out, err = evaluate(tasks='svamp,wikitext2')
  assert code == 0, err
  called, plain, wrong = predictions('toolformer')
  assert called['calls'] == [{'tool': 'Calculator', 'argument': '40 + 2', 'result': '42',
                              'failure': None}]
  assert called['text'].startswith(' [Calculator(40 + 2) -> 42] 42.')
  assert called['prediction'].startswith(' 42.') and '[' not in called['prediction']
  assert (called['extracted'], called['correct']) == ('42', True)
  assert plain['correct'] and not plain['calls'] and not wrong['correct']
  assert '[' not in predictions('disabled')[0]['text']
  assert not predictions('disabled')[0]['calls'] and not predictions('base')[0]['calls']
  found = scores()
  best = found['svamp', 'toolformer']
  assert best['value'] == pytest.approx(200 / 3) and best['low'] < best['value'] < best['high']
  assert best['tool_use'] == {'Calculator': pytest.approx(100 / 3)}
  assert (best['with_call'], best['without_call']) == (100, 50)
  # A perplexity with tools disabled is the plain one; with calls there is none (footnote 8).
  assert found['wikitext2', 'disabled']['value'] == found['wikitext2', 'base']['value']
  assert ('wikitext2', 'toolformer') not in found
  assert out == pathlib.Path('out/report.md').read_text()
  assert '| SVAMP | 3 |' in out and 'number_tolerance = 0.005' in out and 'seed = 0' in out
  assert '\\toprule' in pathlib.Path('out/tables.tex').read_text()
  assert {path.name for path in pathlib.Path('out/plots').iterdir()} == {
      'svamp.png', 'svamp.pdf', 'wikitext2.png', 'wikitext2.pdf'}


def test_the_same_command_computes_only_what_is_missing(evaluate):
  _, first, _ = evaluate('--limit', 2)
  before = computed()
  assert evaluate('--limit', 2)[:2] == (0, first) and computed() == before
  # More questions and another arm: what was there stays.
  code, more, _ = evaluate(arms='base,cc,disabled,toolformer')
  assert code == 0 and before.items() < computed().items() and '| SVAMP | 3 |' in more
  judged = predictions('toolformer')
  # A run that was killed lacks its last file.
  lost = pathlib.Path('out/work/svamp/toolformer/00001.jsonl')
  lost.rename(lost.with_suffix('.jsonl.tmp'))
  assert evaluate(arms='base,cc,disabled,toolformer')[:2] == (0, more)
  assert predictions('toolformer') == judged
  # Judging is done anew: no prediction depends on it.
  before = computed()
  assert evaluate('--gin.EvaluationConfig.number_tolerance=1.0')[0] == 0
  assert scores()['svamp', 'base']['value'] == 200 / 3 and computed() == before


@pytest.mark.parametrize(('change', 'named'), [
    (['--gin.GenerationConfig.max_call_tokens=9'], 'max_call_tokens'),
    (['--gin.EvaluationConfig.number_tokens=7'], 'max_tokens'),
    (['--gin.CallSyntax.arrow=" -->"'], 'arrow'),
])
def test_a_folder_made_otherwise_is_refused(evaluate, change, named):
  assert evaluate('--limit', 1)[0] == 0
  code, out, err = evaluate(*change)
  assert (code, out) == (2, '') and named in err.splitlines()[-1]


def test_a_prompt_that_is_too_long_counts_as_wrong_and_is_told(evaluate):
  write('svamp', 'SVAMP.json', json.dumps([PROBLEMS[1][0], {
      'ID': 'long', 'Body': 'Xi has 7. ' * 200, 'Question': 'How many?', 'Answer': 7.0}]))
  code, out, _ = evaluate(arms='base')
  assert code == 0 and scores()['svamp', 'base']['value'] == 50
  assert '- SVAMP, base: 1 of 2 prompts are too long for the model and count as wrong.' in out


def test_other_questions_in_the_same_folder_are_refused(evaluate):
  assert evaluate(arms='base')[0] == 0
  write('svamp', 'SVAMP.json', json.dumps([{**PROBLEMS[0][0], 'Body': 'Else.'}]))
  code, _, err = evaluate(arms='base')
  assert code == 2 and 'c1' in err and '--output_dir' in err


def test_other_texts_in_the_same_folder_are_refused(evaluate):
  assert evaluate(tasks='wikitext2', arms='base')[0] == 0
  write('wikitext2', 'wiki.valid.tokens', WIKI.replace('two 2', 'two 3'))
  code, _, err = evaluate(tasks='wikitext2', arms='base')
  assert code == 2 and 'wikitext-000' in err and '--output_dir' in err


def test_the_date_of_the_calendar_belongs_to_the_question(evaluate):
  write('templama', 'test.json', json.dumps(
      {'query': 'Di Mo plays for _X_.', 'answer': [{'name': 'AC'}], 'date': '2014', 'id': 'x1'}))
  ask = dict(tasks='templama', arms='toolformer', tools='calendar')
  assert evaluate(**ask)[0] == 0
  assert predictions('toolformer', 'templama')[0]['date'] == '2014-07-01'
  code, _, err = evaluate('--gin.EvaluationConfig.templama_day="12-31"', **ask)
  assert code == 2 and 'x1' in err


def test_records_of_earlier_versions_are_read(evaluate):
  run = dict(tasks='svamp,wikitext2', arms='base')
  _, report, _ = evaluate(**run)
  for path in computed():
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(''.join(json.dumps({name: value for name, value in record.items()
                                        if name not in ('date', 'sha256')}) + '\n'
                            for record in records))
  before = computed()
  assert evaluate(**run)[:2] == (0, report) and computed() == before


def test_any_character_of_a_prediction_is_read_back(evaluate):
  assert evaluate(arms='base')[0] == 0
  path, = computed()
  lines = path.read_text().splitlines()
  record = {**json.loads(lines[0]), 'prediction': ' 42\u2028\x85 of them'}
  path.write_text('\n'.join([json.dumps(record, ensure_ascii=False), *lines[1:]]) + '\n')
  assert evaluate(arms='base')[0] == 0
  assert predictions('base')[0] == {**record, 'extracted': '42', 'correct': True}


@pytest.mark.parametrize('line', ['{"id": ', '{"id": "c1", "colour": 3}', '[]'])
def test_a_broken_record_is_one_line(evaluate, line):
  assert evaluate(arms='base')[0] == 0
  path, = computed()
  path.write_text(line + '\n')
  code, _, err = evaluate(arms='base')
  assert code == 2 and f'{path}:1: ' in err.splitlines()[-1] and 'Traceback' not in err


def test_samples_do_not_depend_on_chunks_and_limits(evaluate, monkeypatch):
  from toolformer_jax.evaluation import runner
  sampled = ['--gin.GenerationConfig.temperature=1.0']
  assert evaluate(*sampled)[0] == 0
  together = {arm: predictions(arm) for arm in ('base', 'disabled', 'toolformer')}
  assert len({record['text'] for record in together['base']}) == 3
  pathlib.Path('out').rename('together')
  monkeypatch.setattr(runner, '_QUESTIONS_PER_CHUNK', 1)
  assert evaluate('--limit', 2, *sampled)[0] == evaluate(*sampled)[0] == 0
  assert {arm: predictions(arm) for arm in together} == together


def test_a_missing_data_set_skips_its_rows_with_the_reason(evaluate):
  code, out, _ = evaluate(tasks='mawps,svamp', arms='base')
  assert code == 0 and '| SVAMP | 3 |' in out
  assert '- mawps: there is no folder data/mawps (with ' in out
  assert 'github.com/arkilpatel/SVAMP' in out
  code, _, err = evaluate(tasks='mawps', arms='base')
  assert code == 2 and 'error: nothing can be evaluated: looked for data/mawps; MAWPS: fetch' in err


def test_a_crash_does_not_lose_the_others_and_is_tried_again(evaluate, monkeypatch):
  write('nq_open', 'NQ-open.dev.jsonl', '{"question": ["not a text"], "answer": []}\n')
  from toolformer_jax.evaluation import runner
  def out_of_order(*args):
    raise RuntimeError('the device is lost')
  with monkeypatch.context() as broken:
    broken.setattr(runner, 'text_logprobs', out_of_order)
    code, out, err = evaluate(tasks='nq_open,wikitext2,svamp', arms='base')
  assert code == 2 and '| SVAMP | 3 |' in out
  assert '- nq_open: ' in out and '- wikitext2/base: RuntimeError: the device is lost' in out
  assert err.splitlines()[-1].startswith('error: 2 failed: nq_open')
  assert 'out_of_order' in pathlib.Path('out/errors/wikitext2.base.txt').read_text()
  code, out, _ = evaluate(tasks='wikitext2,svamp', arms='base')
  assert code == 0 and '| WikiText | 2 |' in out


@pytest.mark.parametrize(('argv', 'error'), [
    (['--tasks', 'swamp'], "unknown task 'swamp': did you mean svamp"),
    (['--arms', 'tool'], "unknown arm 'tool'"),
    (['--arms', 'base,base'], '--arms: base occurs twice'),
    (['--arms', 'base=nowhere'], 'there is no folder nowhere either'),
    (['--arms', ','], '--arms names no arm'),
    (['--tasks', 'svamp,svamp'], '--tasks: svamp occurs twice'),
    (['--gin.EvaluationConfig.number_tokens=1100'], 'leave no room for a prompt'),
    (['--gin.EvaluationConfig.min_tokens=9'], 'min_tokens 9 must not exceed max_tokens 6'),
    (['--gin.GenerationConfig.stop=("",)'], 'GenerationConfig.stop must hold non-empty strings'),
    (['--limit', '0'], '--limit must be at least 1'),
    (['--data_dir', 'nowhere'], '--data_dir: there is no folder nowhere'),
    (['--tools', 'abacus'], "unknown tool 'abacus'"),
    (['--gin.EvaluationConfig.lama_statements="both"'], 'lama_statements must be'),
    (['--gin.EvaluationConfig.templama_day="13-01"'], 'templama_day'),
])
def test_bad_input_is_one_line(evaluate, argv, error):
  code, out, err = evaluate(*argv)
  assert (code, out) == (2, '')
  assert err.splitlines()[-1].startswith('error: ') and error in err.splitlines()[-1]
  assert 'Traceback' not in err


def test_perplexities_need_an_arm_without_calls(evaluate):
  code, _, err = evaluate(tasks='wikitext2', arms='toolformer')
  assert code == 2 and 'perplexities need an arm without calls' in err


def test_an_arm_needs_a_checkpoint(capsys):
  code = cli.main(['evaluate', '--tasks', 'dateset', '--arms', 'base', '--output_dir', 'out'])
  assert code == 2 and 'base has no checkpoint' in capsys.readouterr().err


@pytest.mark.long
def test_the_real_model_on_all_the_real_data(data_dir, smollm2_path, capsys, monkeypatch):
  monkeypatch.setenv('TOOLFORMER_CACHE', os.path.dirname(smollm2_path))
  code = cli.main(['evaluate', '--checkpoint', 'smollm2-135m', '--data_dir', str(data_dir),
                   '--tasks', 'lama,asdiv,svamp,gsm8k,webquestions,nq_open,xquad,dateset',
                   '--tools', 'calculator,calendar,wikisearch', '--limit', '3',
                   '--output_dir', 'out'])
  out = capsys.readouterr().out
  assert code == 0, out
  for title in ('LAMA', 'ASDiv', 'SVAMP', 'GSM8K', 'WebQS', 'NQ', 'XQuAD', 'Dateset'):
    assert f'| {title} | 3 |' in out


@pytest.mark.parametrize(('change', 'named'), [
    (['--gin.ModelConfig.dtype="bfloat16"'], 'dtype'),
    (['--gin.ExecutorConfig.max_result_chars=9'], 'limits.max_result_chars')])
def test_predictions_depend_on_dtype_and_limits_of_tools(evaluate, change, named):
  assert evaluate('--limit', 1)[0] == 0
  code, _, err = evaluate(*change, '--limit', 1)
  assert code == 2 and named in err


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int8', 'int4'])
def test_the_report_states_what_the_models_computed_in(evaluate, dtype):
  code, _, err = evaluate(f'--gin.ModelConfig.dtype="{dtype}"', '--limit', 1, arms='base')
  assert code == 0, err
  assert f'\n- ModelConfig: dtype = {dtype}\n' in pathlib.Path('out/report.md').read_text()
  assert json.loads(pathlib.Path('out/summary.json').read_text())['dtype'] == dtype


def test_predictions_depend_on_tools_and_the_searched_corpus(evaluate):
  corpus = pathlib.Path('pages.jsonl')
  corpus.write_text('{"id": "1", "title": "Xi", "text": "Xi has 7."}\n')
  search = ['--limit', 1, '--gin.SearchConfig.corpus="pages.jsonl"']
  assert evaluate(*search, tools='calculator,wikisearch', arms='toolformer')[0] == 0
  code, _, err = evaluate('--limit', 1, arms='toolformer')
  assert code == 2 and 'tools.WikiSearch' in err
  corpus.write_text('{"id": "1", "title": "Xi", "text": "Xi has 8."}\n')
  code, _, err = evaluate(*search, tools='calculator,wikisearch', arms='toolformer')
  assert code == 2 and 'tools.WikiSearch' in err


def test_what_an_evaluation_decides_cannot_be_set_in_silence(evaluate):
  code, _, err = evaluate('--gin.GenerationConfig.max_tokens=9')
  assert code == 2 and 'GenerationConfig.max_tokens has no effect on an evaluation' in err
