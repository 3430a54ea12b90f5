"""An experiment is the same as its stages by hand; a grid does equal stages once."""

import json
import pathlib

import pytest

from toolformer_jax.annotation.sample import CallSampler
from toolformer_jax.experiments import runner

EXPERIMENT = ('experiment', '--gin_file', 'base.gin', '--gin_file', 'small.gin')
SEEDS = ('--gin.GridConfig.seeds=(0, 1)', "--gin.GridConfig.ablations=('short.gin', 'no_call.gin')")


def test_an_experiment_is_its_stages_by_hand(run):
  code, out, err = run(*EXPERIMENT, '--output_dir', 'runs')
  assert code == 0, err
  cell = pathlib.Path('runs/model/base/seed0')
  gin = ('--gin_file', cell / 'config.gin')
  for command in (['annotate', *gin, '--output_dir', 'calls'],
                  ['finetune', *gin, '--data', 'calls', '--output_dir', 'tuned'],
                  ['finetune', *gin, '--data', 'calls', '--without_calls', '--output_dir', 'cc'],
                  ['evaluate', *gin, '--output_dir', 'evaluation', '--arms',
                   'base=checkpoint,cc=cc,disabled=tuned,toolformer=tuned']):
    code, _, err = run(*command)
    assert code == 0, err
  by_hand = pathlib.Path('evaluation/report.md').read_text()
  report = (cell / 'report.md').read_text()
  tables = by_hand.partition('## Departures')[0]
  assert tables.count('|') > 20 and report.startswith(tables)
  assert '| SVAMP | Toolformer | 5 |' in report and '| 29.4 |' in report
  assert out == pathlib.Path('runs/report.md').read_text()
  assert len(list(pathlib.Path('runs/stages').iterdir())) == 1 + 2 + 4


def test_arms_with_a_checkpoint_are_not_trained(run, folder):
  arms = 'base,disabled=checkpoint,toolformer=checkpoint'
  code, out, err = run(*EXPERIMENT, '--arms', arms, '--gin.CORPUS=""', '--output_dir', 'runs')
  assert code == 0, err
  assert {path.name.split('-')[0] for path in folder.glob('runs/stages/*')} == {'evaluate'}
  assert '| SVAMP | Toolformer | 5 |' in out and '| 29.4 |' in out
  code, _, err = run(*EXPERIMENT, '--arms', arms.replace('=checkpoint', '=nowhere'),
                     '--output_dir', 'other')
  assert code == 2 and "'nowhere'" in err and not pathlib.Path('other').exists()


def test_a_tool_that_was_not_trained_is_demonstrated(run, folder):
  (folder / 'untuned.gin').write_text('ExperimentConfig.rounds = 0\n')
  (folder / 'shots.txt').write_text('Two and two are [Echo(2 + 2) -> 4] 4.\n')
  functions = dict.fromkeys(('Calculator', 'Echo'), 'echo_tool:echo')
  code, _, err = run(
      *EXPERIMENT, '--output_dir', 'runs', '--arms', 'toolformer',
      f'--gin.CustomToolsConfig.functions={functions}',
      "--gin.ExperimentConfig.evaluation_tools=('echo',)", '--gin.GridConfig.seeds=(0, 1)',
      "--gin.EvaluationConfig.few_shot_prompt='shots.txt'",
      "--gin.GridConfig.ablations=('untuned.gin',)")
  assert code == 0, err
  kinds = [path.name.split('-')[0] for path in folder.glob('runs/stages/*')]
  assert sorted(kinds) == ['annotate', *['evaluate'] * 3, *['finetune'] * 2]
  assert not (folder / 'runs/model/untuned/seed1').exists()  # seeds are those of the training
  predictions = [json.loads(line) for file in folder.glob('runs/stages/evaluate-*/predictions/*')
                 for line in file.read_text().splitlines()]
  assert len(predictions) == 15
  for one in predictions:
    assert one['prompt'].startswith('Two and two are [Echo(2 + 2) -> 4] 4.\n\nXi has ')
  for path in folder.glob('runs/stages/evaluate-*/work/svamp/toolformer/run.json'):
    assert json.loads(path.read_text())['configuration']['tools'] == {'Echo': '1'}
  code, _, err = run(*EXPERIMENT, '--output_dir', 'other', '--arms', 'base',
                     "--gin.EvaluationConfig.few_shot_prompt='nowhere.txt'")
  assert code == 2 and 'few_shot_prompt: cannot read nowhere.txt' in err


def test_cells_share_equal_stages_and_a_second_run_does_nothing(run, monkeypatch):
  code, out, err = run(*EXPERIMENT, *SEEDS, '--output_dir', 'runs', '--dry_run')
  assert code == 0, err
  # One annotation; two arms of training for (steps 2, steps 1) x 2 seeds.
  assert '1 annotate' in out and '8 finetune' in out
  # The base model; the cc and the disabled arm of (steps 2, steps 1) x 2 seeds: how calls are
  # decoded is a setting of Toolformer's 6 alone.
  assert f'{1 + 2 * 4 + 6} evaluate' in out
  assert not pathlib.Path('runs').exists()
  grid = (*EXPERIMENT, *SEEDS, '--arms', 'base,toolformer', '--output_dir', 'runs')
  code, out, err = run(*grid)
  assert code == 0, err
  report = pathlib.Path('runs/report.md').read_text()
  assert '| model | base | Toolformer | 2 |' in report and '| model | short | SVAMP |' in report
  assert pathlib.Path('runs/figures/ablations.png').stat().st_size > 1000
  monkeypatch.setattr(runner, '_RUN', {})
  assert run(*grid)[:2] == (0, report)


def test_an_arm_without_calls_is_evaluated_once_for_all_settings_of_tools(run, folder):
  (folder / 'tools.gin').write_text('ExecutorConfig.time_limit_s = 3.0\n'
                                    'SearchConfig.snippet_words = 20\n')
  code, out, err = run(*EXPERIMENT, "--gin.GridConfig.ablations=('tools.gin',)", '--dry_run',
                       '--arms', 'disabled=checkpoint,toolformer=checkpoint',
                       '--output_dir', 'runs')
  assert code == 0, err
  assert '3 evaluate' in out


def test_an_ablation_of_a_threshold_takes_the_samples_of_the_base_cell(run, folder, monkeypatch):
  (folder / 'strict.gin').write_text('calculator/ToolConfig.tau_f = 0.0\n')
  sampled = []
  sample = CallSampler.__call__
  monkeypatch.setattr(CallSampler, '__call__', lambda self, documents: (
      sampled.append([one.id for one in documents]), sample(self, documents))[1])
  code, _, err = run(*EXPERIMENT, "--gin.GridConfig.ablations=('strict.gin',)",
                     '--output_dir', 'runs')
  assert code in (0, 2), err  # no call may be left to learn from
  runs = sorted(pathlib.Path('runs/stages').glob('annotate-*'))
  assert len(runs) == 2 and len(sampled) == 1
  first, second = (
      {path.name: path.read_bytes() for path in one.glob('calculator/sample/*/*.jsonl')}
      for one in runs)
  assert first == second != {}


def test_a_failed_cell_stops_no_other(run, folder):
  (folder / 'broken.gin').write_text('calculator/ToolConfig.tau_f = 1000.0\n')
  grid = ("--gin.GridConfig.ablations=('broken.gin', 'short.gin')", '--arms', 'toolformer')
  code, out, err = run(*EXPERIMENT, *grid, '--output_dir', 'runs')
  assert code == 2 and '1 of 3 cells are incomplete' in err
  report = pathlib.Path('runs/report.md').read_text()
  assert '| model | broken | - | 0 | - |' in report
  assert '- model/broken/seed0: no call was kept' in report
  assert '| model | short | Toolformer | 1 |' in report


def test_what_was_evaluated_is_reported_where_training_failed(run, folder):
  (folder / 'broken.gin').write_text('calculator/ToolConfig.tau_f = 1000.0\n')
  grid = ("--gin.GridConfig.ablations=('broken.gin',)", '--arms', 'base,toolformer')
  code, _, err = run(*EXPERIMENT, *grid, '--output_dir', 'runs')
  assert code == 2 and '1 of 2 cells are incomplete' in err
  for report in ('runs/report.md', 'runs/model/broken/seed0/report.md'):
    assert 'SVAMP' in pathlib.Path(report).read_text()
  report = pathlib.Path('runs/model/broken/seed0/report.md').read_text()
  assert '| SVAMP | base | 5 |' in report and 'Toolformer |' not in report
  assert report.count('- Toolformer: no call was kept') == 2  # the evaluation, beside the paper
  assert '- model/broken/seed0: no call was kept' in pathlib.Path('runs/report.md').read_text()


def test_an_ablation_for_all_tools_is_for_those_with_settings_of_their_own(run, folder):
  (folder / 'inner.gin').write_text('ToolConfig.m = 1  # of all tools\n')
  (folder / 'samples.gin').write_text('include "inner.gin"  # a file may include another\n')
  code, out, err = run(*EXPERIMENT, "--gin.GridConfig.ablations=('samples.gin',)", '--dry_run',
                       '--output_dir', 'runs')
  assert code == 0, err
  assert '2 annotate' in out


def test_an_adapter_is_refused_wherever_it_is_named(run, folder):
  (folder / 'adapter').mkdir()
  (folder / 'adapter' / 'adapter_config.json').write_text('{}')
  (folder / 'adapted.gin').write_text("ADAPTER = 'adapter'\n")
  for option in (('--adapter', 'adapter'), ('--gin_file', 'adapted.gin'),
                 ("--gin.GridConfig.ablations=('adapted.gin',)",)):
    code, out, err = run(*EXPERIMENT, *option, '--dry_run', '--output_dir', 'runs')
    assert (code, out) == (2, '') and len(err.splitlines()) == 1
    assert '`toolformer export --checkpoint checkpoint --adapter adapter --output_dir M`' in err


def test_a_dry_run_says_which_benchmarks_are_not_there(run):
  code, out, _ = run(*EXPERIMENT, '--tasks', 'svamp,mawps', '--dry_run', '--output_dir', 'runs')
  assert (code, 'Skipped, because the data are missing: MAWPS (in data).' in out) == (0, True)


def test_the_second_round_is_annotated_by_the_model_of_the_first(run):
  code, out, err = run(*EXPERIMENT, '--gin.ExperimentConfig.rounds=2', '--arms', 'toolformer',
                       '--output_dir', 'runs')
  assert code == 0, err
  stages = pathlib.Path('runs/stages')
  checkpoints = {json.loads(path.read_text())['configuration']['checkpoint']
                 for path in stages.glob('annotate-*/run.json')}
  assert len(checkpoints) == 2 and len(list(stages.glob('finetune-*'))) == 2


def test_single_cells_make_the_same_report(run):
  grid = ("--gin.GridConfig.ablations=('short.gin',)", '--arms', 'base,toolformer')
  for cell, missing in ((1, 1), (0, 0)):
    code, _, err = run(*EXPERIMENT, *grid, '--output_dir', 'one', '--cell', cell)
    assert code == (2 if missing else 0)
    assert ('1 of 2 cells are incomplete' in err) == (missing == 1)
  assert run(*EXPERIMENT, *grid, '--output_dir', 'all')[0] == 0
  one, both = (pathlib.Path(name, 'report.md').read_text() for name in ('one', 'all'))
  assert one == both


@pytest.mark.parametrize(('argv', 'message'), [
    (['--cell', '3'], '--cell 3: the grid has the cells 0 to 0'),
    (["--gin.GridConfig.sizes=('small.gin', 'small.gin')"], 'GridConfig.sizes must have different'),
    (["--gin.GridConfig.ablations=('small.gin',)"], 'are the same experiment'),
    (['--arms', 'all'], "unknown arm 'all'"),
    (['--data_dir', 'nowhere'], 'there is no folder nowhere'),
    (['--tasks', 'mawps'], 'nothing can be evaluated: looked for data/mawps'),
    (["--gin.GridConfig.ablations=('nowhere.gin',)"], 'there is no gin file nowhere.gin')])
def test_wrong_grids_are_errors_of_one_line(run, argv, message):
  for dry_run in ([], ['--dry_run']):
    code, out, err = run(*EXPERIMENT, *argv, *dry_run, '--output_dir', 'runs')
    assert (code, out) == (2, '') and message in err and len(err.splitlines()) == 1
  assert not pathlib.Path('runs/stages').exists()
