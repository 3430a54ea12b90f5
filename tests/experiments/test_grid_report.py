"""What the report of a grid says of benchmarks that were not evaluated."""

from etils import epath

from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.experiments.experiment import Experiment
from toolformer_jax.experiments.grid import Cell, Factors
from toolformer_jax.experiments.grid_plots import draw
from toolformer_jax.experiments.grid_report import GridResult
from toolformer_jax.experiments.results import CellResult

EXPERIMENT = Experiment(checkpoint='c', tasks=('svamp', 'mawps'), tools=('calculator',),
                        corpus='texts.jsonl')


def lines(*skipped):
  """Returns what was not evaluated, of cells that skipped these benchmarks."""
  cells = [CellResult(Cell(Factors('', '', seed), EXPERIMENT), skipped=one)
           for seed, one in enumerate(skipped)]
  report = GridResult('A grid', cells, EvaluationConfig()).report
  return report.partition('## Not evaluated\n\n')[2].splitlines()


def test_what_all_cells_skipped_is_told_once():
  assert lines({'mawps': 'no file'}, {'mawps': 'no file'}) == ['- mawps: no file']


def test_what_some_cells_skipped_names_them():
  assert lines({'asdiv': 'no file', 'mawps': 'no file'}, {'asdiv': 'no file', 'mawps': 'broken'},
               {'asdiv': 'no file'}) == [
      '- asdiv: no file', '- mawps (model/base/seed0): no file',
      '- mawps (model/base/seed1): broken']


def test_a_grid_without_any_score_has_a_report_and_no_figures(tmp_path):
  cells = [CellResult(Cell(Factors('', ablation, 0), EXPERIMENT), failure='it was stopped')
           for ablation in ('', 'one.gin')]
  result = GridResult('A grid', cells, EvaluationConfig())
  assert '- model/one/seed0: it was stopped' in result.report
  assert draw(result, epath.Path(tmp_path)) == []
