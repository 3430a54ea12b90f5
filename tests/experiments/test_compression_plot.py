"""The plot of scores by speed joins a grid with what a benchmark measured, by name."""

import json

import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.experiments.experiment import Experiment
from toolformer_jax.experiments.grid import Cell, Factors
from toolformer_jax.experiments.grid_report import GridResult, score_objects
from toolformer_jax.experiments.results import CellResult

EXPERIMENT = Experiment(checkpoint='c', tasks=('svamp',), tools=('calculator',), corpus='c.jsonl')
RIGHT = {('base', 'toolformer'): 3, ('base', 'disabled'): 1, ('int4', 'toolformer'): 2,
         ('int4', 'disabled'): 0, ('fewer', 'toolformer'): 1}
SPEEDS = {'base': {'tokens': 96, 'seconds': 4.0, 'memory': 1.25},
          'int4': {'tokens': 96, 'seconds': 3.0, 'memory': 0.5}}


@pytest.fixture
def plot(experiment):
  pytest.importorskip('matplotlib')
  return experiment('compression_plot')


@pytest.fixture
def scores():
  cells = []
  for ablation in ('', 'int4', 'fewer'):
    records = {('svamp', arm): [{'id': str(i), 'group': '', 'correct': i < right}
                                for i in range(4)]
               for (name, arm), right in RIGHT.items() if name == (ablation or 'base')}
    cells.append(CellResult(Cell(Factors('', ablation, 0), EXPERIMENT), records,
                            models={arm: 'c' for _, arm in records}))
  return score_objects(GridResult('A grid', cells, EvaluationConfig()))


def test_models_are_at_their_scores_speeds_and_memory(plot, scores, tmp_path, monkeypatch):
  (tmp_path / 'scores.json').write_text(json.dumps({'scores': scores}))
  (tmp_path / 's.json').write_text(json.dumps(SPEEDS))
  monkeypatch.setattr('sys.argv', ['', '--grid', str(tmp_path), '--speeds',
                                   str(tmp_path / 's.json'), '--output', str(tmp_path / 'o.png')])
  plot.main()
  assert {path.name for path in tmp_path.glob('o.*')} == {'o.png', 'o.pdf'}
  figure = plot.draw(scores, SPEEDS)
  found = [{(arm.get_label(), *map(float, point))
            for arm in axes.containers for point in arm.lines[0].get_xydata()}
           for axes in figure.axes]
  expected = [('Toolformer', (24.0, 1.25), 75), ('Toolformer', (32.0, 0.5), 50),
              ('Toolformer (disabled)', (24.0, 1.25), 25),
              ('Toolformer (disabled)', (32.0, 0.5), 0)]
  assert found == [{(arm, costs[i], right) for arm, costs, right in expected} for i in range(2)]
  assert {text.get_text() for text in figure.axes[0].texts} == {'base', 'int4'}


def test_unknown_names_and_several_sizes_are_refused(plot, scores):
  with pytest.raises(UserError, match='no ablation int3; it has base, int4, fewer'):
    plot.check(scores, {'int3': {}})
  with pytest.raises(UserError, match='several sizes'):
    plot.check([*scores, scores[0] | {'size': 'large'}], SPEEDS)
