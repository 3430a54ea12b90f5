"""Draws scores of compressed models by the tokens that they decode in a second, and by memory.

    python experiments/compression_plot.py --grid G --speeds S --output O.png

G is the folder of a grid of one size, as `toolformer experiment` writes it. S is what

    python benchmarks/compressed_models.py --model base=F --model int4=F,int4 --json S

measured, where the names are those of the grid's ablations. A grid holds no seconds, so that its
report is the same when it is made again. O.pdf is written as well.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etils import epath

from toolformer_jax import cli
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.seed_statistics import SeededScore
from toolformer_jax.runtime.run_dir import read_json

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Speeds = Mapping[str, Mapping[str, float]]  # what was measured of each model


def main() -> None:
  """Reads the options, and writes the figure."""
  parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--grid', type=epath.Path, required=True, metavar='G')
  parser.add_argument('--speeds', type=epath.Path, required=True, metavar='S')
  parser.add_argument('--output', type=epath.Path, required=True, metavar='O')
  args = parser.parse_args()
  scores, speeds = read_json(args.grid / 'scores.json')['scores'], read_json(args.speeds)
  check(scores, speeds)
  from toolformer_jax.evaluation.plots import save
  save(draw(scores, speeds), args.output)


def check(scores: list[dict[str, Any]], speeds: Speeds) -> None:
  """Raises UserError if the names of the models do not tell which of the grid's they are."""
  if len({one['size'] for one in scores}) > 1:
    raise UserError('the grid has several sizes; take one with ablations of one size')
  known = list(dict.fromkeys(one['ablation'] for one in scores))
  for name in speeds:
    if name not in known:
      raise UserError(f'--speeds: the grid has no ablation {name}; it has {", ".join(known)}')


def draw(scores: list[dict[str, Any]], speeds: Speeds) -> 'Figure':
  """Returns a figure with a row for each task, by speed and by memory."""
  from matplotlib.figure import Figure

  from toolformer_jax.experiments.grid_plots import draw_by_cost, finish_costs
  costs = {'tokens decoded in a second': lambda one: one['tokens'] / one['seconds'],
           'peak memory of decoding (GiB)': lambda one: one['memory']}
  tasks = list(dict.fromkeys(one['task'] for one in scores))
  figure = Figure(figsize=(9, 3.6 * len(tasks)))
  for row, task in zip(figure.subplots(len(tasks), 2, squeeze=False), tasks, strict=True):
    for axes, (title, cost) in zip(row, costs.items(), strict=True):
      for arm in dict.fromkeys(one['arm'] for one in scores):
        draw_by_cost(axes, arm, [
            (one['ablation'], cost(speeds[one['ablation']]), SeededScore(**one['score']))
            for one in scores
            if (one['task'], one['arm']) == (task, arm) and one['ablation'] in speeds])
      finish_costs(axes, task, title)
  return figure


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
