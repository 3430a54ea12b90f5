"""What the report of a grid compares, and what it says of benchmarks that were not evaluated."""

import dataclasses

from etils import epath

from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.experiments.experiment import Experiment
from toolformer_jax.experiments.grid import Cell, Factors
from toolformer_jax.experiments.grid_plots import draw
from toolformer_jax.experiments.grid_report import GridResult
from toolformer_jax.experiments.results import CellResult, read_result
from toolformer_jax.experiments.runner import StageRunner
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.training.config import FinetuneConfig

EXPERIMENT = Experiment(checkpoint='c', tasks=('svamp', 'mawps'), tools=('calculator',),
                        corpus='texts.jsonl')


def models(tmp_path, seed=0, **changes):
  """Returns the name of the training of each arm's model."""
  experiment = dataclasses.replace(EXPERIMENT, finetune=FinetuneConfig(seed=seed), **changes)
  return read_result(Cell(Factors('', '', seed), experiment), StageRunner(epath.Path(tmp_path))
                     ).models


def test_models_of_one_training_have_its_name(tmp_path):
  found = models(tmp_path)
  assert found['base'] == 'c' and len(set(found.values())) == 3
  assert found['disabled'] == found['toolformer']
  assert models(tmp_path, generation=GenerationConfig(top_k_api=1)) == found
  assert models(tmp_path, compression=CompressionConfig(bits='int8', rounding='nearest')) == found
  assert found['toolformer'] not in models(tmp_path, seed=1).values()


def test_an_ablation_of_decoding_that_changes_no_answer_has_no_interval():
  """Models differ much from seed to seed, but both groups have the same models."""
  def cells(ablation, trained):
    return [CellResult(Cell(Factors('', ablation, seed), EXPERIMENT), models={
        'toolformer': f'{trained}{seed}'}, records={('svamp', 'toolformer'): [
            {'id': str(i), 'group': '', 'correct': i < 30 * seed} for i in range(100)]})
            for seed in range(3)]
  result = GridResult('A grid', [*cells('', 'a'), *cells('k.gin', 'a'), *cells('rate.gin', 'b')],
                      EvaluationConfig())
  base, decoding, training = ((group, 'toolformer') for group in result.groups())
  same, other = (result.difference(base, one, 'svamp') for one in (decoding, training))
  assert (same.low, same.value, same.high) == (0, 0, 0) and other.low < 0 < other.high


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
