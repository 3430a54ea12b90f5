"""The scripts of tables and figures, from a checkpoint to ours beside the paper's."""

import json
import pathlib
import sys

import pytest

from toolformer_jax import cli
from toolformer_jax.data.records import Document, ExecutedCall, ScoredCall
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.evaluation.scores import ACCURACY, Score

from .conftest import PROBLEMS

REPOSITORY = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for pattern in ('table*.py', 'figure*.py', 'all.py')
                 for path in (REPOSITORY / 'experiments').glob(pattern))


@pytest.fixture
def script(tmp_path, monkeypatch, capsys, taught, experiment):
  """Runs a script in a folder with a few questions; returns exit code, standard output, error."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  files = {'svamp/SVAMP.json': json.dumps([problem for problem, _ in PROBLEMS]),
           'webquestions/test.json': json.dumps([{'qId': 'w', 'qText': 'who', 'answers': ['I']}])}
  for name, text in files.items():
    (tmp_path / 'data' / name).parent.mkdir(parents=True)
    (tmp_path / 'data' / name).write_text(text)
  def script(name, *argv):
    module = experiment(name)
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, argv)])
    code = module.main(name, module.TITLE, module.run, getattr(module, 'add', None)
                       or module.evaluate.add_evaluation_options)
    return code, *capsys.readouterr()
  return script


QUICK = ['--data_dir', 'data', '--tools', 'calculator', '--gin.EngineConfig.slots=4',
         '--gin.GenerationConfig.top_k_api=1', '--gin.EvaluationConfig.number_tokens=6',
         '--gin.EvaluationConfig.tokens_per_word=1']


@pytest.mark.parametrize('name', SCRIPTS)
def test_every_script_says_what_it_does(name):
  text = (REPOSITORY / 'experiments' / f'{name}.py').read_text()
  assert f'python experiments/{name}.py' in text and len(text.splitlines()) <= 140


@pytest.fixture
def table4(script, taught, capsys):
  """Makes table 4 with a checkpoint that is there; returns exit code, standard output, error."""
  def table4():
    arms = ','.join(f'{arm}={taught}' for arm in ('disabled', 'toolformer'))
    code = cli.main(['experiment', '--gin_file', 'experiments/table4_math.gin', '--checkpoint',
                     str(taught), '--arms', arms, '--output_dir', 'runs/table4', *QUICK])
    return code, *capsys.readouterr()
  return table4


def test_a_table_has_ours_beside_the_papers_and_says_what_is_missing(table4):
  code, out, err = table4()
  assert code == 0, err
  assert '| SVAMP | Toolformer | 3 | 66.7 [' in out and '] | 29.4 |' in out
  assert '| ASDiv | Toolformer | - | - | 40.4 |' in out
  assert '| SVAMP | GPT-3 (175B) |  |  | 10.0 |' in out
  assert '| SVAMP | Toolformer (disabled) | +' in out and '| +23.1 |' in out
  assert '| SVAMP | Calculator | 33.3 | 97.9 (all three) |' in out
  assert '- mawps: there is no folder data/mawps (with *.json, or .gz): fetch' in out
  assert '- SVAMP: 3 questions of data/svamp/SVAMP.json (split: all)' in out
  assert pathlib.Path('runs/table4/report.md').read_text() == out
  assert '\\toprule' in pathlib.Path('runs/table4/table.tex').read_text()
  # What is done is not done again.
  work = [path.stat().st_mtime_ns for path in pathlib.Path('runs').rglob('0*.jsonl')]
  assert table4()[1] == out
  assert work == [path.stat().st_mtime_ns for path in pathlib.Path('runs').rglob('0*.jsonl')]


def test_k_of_decoding(script, taught):
  code, out, err = script('table9_decoding_k', '--checkpoint', taught, *QUICK)
  assert code == 0, err
  assert '## WebQS' in out and '## T-REx' in out
  assert 'there is no folder data/lama (with Squad' in out
  assert '1 questions of data/webquestions/test.json (split: test)' in out
  for k in (0, 1, 3, 10):
    assert f'\n| {k} | ' in out
    assert pathlib.Path(f'runs/paper/table9_decoding_k/k{k}/report.md').is_file()


def test_scaling(script, taught):
  code, out, err = script('figure4_scaling', '--sizes', f'1={taught}', *QUICK)
  assert code == 0, err
  assert '| Math | ours | 1 | 66.7 | ' in out and '| Math | paper | 6700 | 26.6 | 11.2 |' in out
  assert '- svamp: 3 questions of data/svamp/SVAMP.json (split: all)' in out
  assert pathlib.Path('runs/paper/figure4_scaling/figure4.png').stat().st_size > 1000


def test_a_crash_in_a_cell_is_exit_code_2_and_the_report_has_the_others(
    script, table4, taught, monkeypatch):
  from toolformer_jax.evaluation import runner
  predict = runner.predict
  def crashing(model, questions, **how):
    if how['config'].disable_tools:
      raise RuntimeError('boom')
    return predict(model, questions, **how)
  monkeypatch.setattr(runner, 'predict', crashing)
  code, out, err = table4()
  assert code == 2 and 'svamp/disabled' in err
  assert '| SVAMP | Toolformer | 3 | 66.7 [' in out and '- svamp/disabled: ' in out
  code, out, err = script('figure4_scaling', '--sizes', f'1={taught}', *QUICK)
  assert code == 2 and 'Traceback' not in err


def result_of(*scores):
  return EvaluationResult(scores=[
      Score(task, group, arm, ACCURACY, value, 0.0, 100.0, 10)
      for task, group, arm, value in scores])


def test_scaling_averages_both_arms_over_the_same_sets(experiment):
  figure4 = experiment('figure4_scaling')
  tasks = ('asdiv', 'svamp', 'mawps')
  both = [('asdiv', '', 'toolformer', 40.0), ('asdiv', '', 'disabled', 10.0)]
  assert figure4.average(result_of(*both), tasks) == (40.0, 10.0)
  assert figure4.average(result_of(*both, ('svamp', '', 'toolformer', 90.0)), tasks) == (40.0, 10.0)
  assert figure4.average(result_of(('svamp', '', 'toolformer', 90.0), both[1]), tasks) is None


@pytest.fixture
def annotated(tmp_path):
  """Three scored calls, as annotate writes them."""
  folder = tmp_path / 'run/calculator/filter'
  folder.mkdir(parents=True)
  calls = [{'document_id': text, 'tool': 'Calculator', 'argument': argument, 'position': 1,
            'probability': 0.5, 'result': '4', 'failure': None, 'loss_no_call': gain + 1.0,
            'loss_call': None if gain < 0 else gain + 1.5, 'loss_result': 1.0}
           for text, argument, gain in (('a', '2 + 2', 2.5), ('a', '1 + 3', 0.75),
                                        ('b', '8 / 2', -0.25))]
  (folder / '00000.jsonl').write_text('\n'.join(map(json.dumps, calls)) + '\n')
  return tmp_path / 'run'


def test_calls_are_counted_by_text_and_threshold(script, annotated):
  code, out, _ = script('table2_api_calls', '--run', annotated)
  assert code == 0 and '| Calculator | 1 | 3,680 | 1 | 994 | 1 | 138 |' in out
  code, _, err = script('table2_api_calls', '--run', 'nowhere')
  assert code == 2 and 'toolformer annotate' in err


def test_calls_are_shown_from_the_best_to_the_worst(script, annotated):
  code, out, _ = script('table10_call_quality', '--run', annotated, '--calls', 2)
  assert code == 0
  ours = [line for line in out.splitlines() if '| 4 |' in line]
  assert ours == ['| Calculator(2 + 2) | 4 | 2.50 |  |', '| Calculator(8 / 2) | 4 | <= -0.25 |  |']


def test_other_thresholds_keep_what_annotate_would(experiment, tokenizer):
  ablation = experiment('ablation_thresholds')
  text = 'Two and two are 4, two and three 5.'
  four, five = (len(tokenizer.encode(text[:text.index(number)])) - 1 for number in '45')
  def call(argument, position, probability, result, gain):
    return ScoredCall('a', 'Calculator', argument, position, probability, result,
                      loss_no_call=gain, loss_call=gain)
  calls = [call('2 + 2', four, 0.2, '4', 0.9), call('1 + 2', four, 0.2, '3', 1.5),
           call('2 + 3', five, 0.6, '5', 0.3)]
  document = Document('a', text)
  ranks = ablation.ranked([*calls, ExecutedCall('a', 'Calculator', '?', 3, 0.4, None)])
  assert ranks == {('a', five): 0, ('a', 3): 1, ('a', four): 2}
  kept = lambda tau_f, k: [c.argument for c in ablation.kept_with(  # noqa: E731
      calls, ranks, [document], tau_f, k)]
  assert kept(0.2, 1) == ['2 + 3'] and kept(0.2, 2) == ['2 + 3']
  assert kept(0.2, 3) == ['1 + 2', '2 + 3'] and kept(0.5, 3) == ['1 + 2']
  assert [ablation.states_next_number(c, text, tokenizer) for c in calls] == [True, False, True]
  table = ablation.rows(calls, ranks, [document], tokenizer, known_from=0.3, rejected=(4, 2))
  assert table[1] == ['0.1', '1', '<= 5', '<= 3', '100%'] and ['0.3', '5', '2', '1', '50%'] in table


def test_all_of_them_in_one_report(script, taught, annotated):
  code, plan, err = script('all', '--checkpoint', taught, '--run', annotated, '--dry_run', *QUICK)
  assert code == 0, err
  assert not pathlib.Path('runs').exists()
  for title in (*(f'Table {i}' for i in range(2, 11)), 'Figure 4'):
    assert f'\n## {title}' in plan
  assert '| SVAMP | Toolformer (disabled), Toolformer | 3 |' in plan
  assert '--sizes was not given' in plan and 'there is no folder data/templama' in plan
