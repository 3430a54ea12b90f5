"""Figures of a grid, as PNG and PDF. Needs matplotlib."""

from collections.abc import Sequence
from typing import Any

import matplotlib.figure
from etils import epath
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from toolformer_jax.evaluation.arms import TITLES
from toolformer_jax.evaluation.plots import COLOURS, save
from toolformer_jax.evaluation.seed_statistics import SeededScore
from toolformer_jax.evaluation.tasks import find_tasks
from toolformer_jax.experiments import paper
from toolformer_jax.experiments.grid import UNCHANGED
from toolformer_jax.experiments.grid_report import GridResult
from toolformer_jax.runtime.paths import make_directory

_PAPER = '0.7'  # grey


def draw(result: GridResult, folder: epath.Path) -> list[epath.Path]:
  """Draws scaling.* if the grid has several sizes, ablations.* if it has ablations.

  If models are compressed, compression.* has the scores by the bytes of the weights.
  """
  make_directory(folder)
  files: list[epath.Path] = []
  if not result.tasks():
    return files
  if len(_evaluated_sizes(result)) > 1:
    files += save(_scaling(result), folder / 'scaling')
  if any(ablation != UNCHANGED for _, ablation in result.groups()):
    files += save(_ablations(result), folder / 'ablations')
  if result.is_compressed:
    files += save(_compression(result), folder / 'compression')
  return files


def _evaluated_sizes(result: GridResult) -> list[str]:
  return [size for size, ablation in result.groups() if ablation == UNCHANGED
          and any(result.size((size, ablation), arm) for arm in result.arms())]


def _scaling(result: GridResult) -> matplotlib.figure.Figure:
  """Draws each task by the size of the model; the paper's Figure 4 in grey if it has the task."""
  tasks = result.tasks()
  figure = matplotlib.figure.Figure(figsize=(3.6 * len(tasks), 3.2))
  labels: dict[str, Any] = {}  # what has which label, once for all tasks
  for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
    for family, names in paper.FAMILIES.items():
      if task in names:
        _draw_paper(axes, family)
    for arm in result.arms():
      points = [(found.parameters / 1e6, score) for size in _evaluated_sizes(result)
                if (found := result.size((size, UNCHANGED), arm))
                and (score := result.score((size, UNCHANGED), task, arm))]
      _draw_points(axes, sorted(points, key=lambda point: point[0]), arm)
    axes.set(title=find_tasks([task])[0].title, xlabel='million parameters', xscale='log')
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis='x', labelsize='small')
    axes.spines[['top', 'right']].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    labels |= dict(zip(names, handles, strict=True))
  figure.legend(labels.values(), labels.keys(), fontsize='x-small', ncols=3, loc='upper center',
                bbox_to_anchor=(0.5, -0.05))
  return figure


def _draw_paper(axes: Axes, family: str) -> None:
  values = paper.SCALING[family]
  for place, (arm, style) in enumerate((('Toolformer', 'o-'), ('disabled', 'o:'))):
    axes.plot(list(values), [pair[place] for pair in values.values()], style, color=_PAPER,
              markersize=3, label=f'paper, {family}: {arm}')


def _draw_points(axes: Axes, points: Sequence[tuple[float, SeededScore]], arm: str,
                 style: str = 'o-') -> None:
  scores = [score for _, score in points]
  # A bound of the bootstrap may lie beyond the value itself.
  whiskers = [[max(0.0, score.value - score.low) for score in scores],
              [max(0.0, score.high - score.value) for score in scores]]
  axes.errorbar([x for x, _ in points], [score.value for score in scores], whiskers, fmt=style,
                color=COLOURS[arm], capsize=2, markersize=4, label=TITLES[arm])


def _ablations(result: GridResult) -> matplotlib.figure.Figure:
  """Draws the effect of each ablation on Toolformer with its interval, task by task."""
  tasks = result.tasks()
  groups = [group for group in result.groups() if group[1] != UNCHANGED]
  figure = matplotlib.figure.Figure(figsize=(3.6 * len(tasks), 1 + 0.35 * len(groups)))
  for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0], tasks,
                        strict=True):
    for y, (size, ablation) in enumerate(groups):
      found = result.difference(((size, UNCHANGED), 'toolformer'), ((size, ablation), 'toolformer'),
                                task)
      if found:
        axes.plot([found.low, found.high], [y, y], color=COLOURS['toolformer'])
        axes.plot(found.value, y, 'o', color=COLOURS['toolformer'], markersize=4)
    axes.axvline(0, color=_PAPER, linewidth=0.8)
    axes.set(title=find_tasks([task])[0].title, xlabel='percentage points')
    axes.set_yticks(range(len(groups)), [' '.join(group) for group in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)  # the first on top
    axes.spines[['top', 'right']].set_visible(False)
  return figure


def _compression(result: GridResult) -> matplotlib.figure.Figure:
  """Draws each task by the bytes of the weights; the names are those of the ablations."""
  tasks = result.tasks()
  figure = matplotlib.figure.Figure(figsize=(4.5 * len(tasks), 3.6))
  for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
    for arm in result.arms():
      draw_by_cost(axes, arm, [
          (group[1], size.weight_bytes / 1e6, score) for group in result.groups()
          if (size := result.size(group, arm)) and (score := result.score(group, task, arm))])
    finish_costs(axes, task, 'MB of weights')
  return figure


def draw_by_cost(axes: Axes, arm: str, models: Sequence[tuple[str, float, SeededScore]]) -> None:
  """Draws the scores of an arm by what its models cost; names the models if it is Toolformer.

  Args:
    axes: where.
    arm: of all models.
    models: name, cost and score of each.
  """
  _draw_points(axes, [(cost, score) for _, cost, score in models], arm, 'o')
  if arm == 'toolformer':
    for name, x, score in models:
      axes.annotate(name, (x, score.value), fontsize='x-small', xytext=(3, 3),
                    textcoords='offset points')


def finish_costs(axes: Axes, task: str, cost: str) -> None:
  """Adds the title, the name of the axis of costs, which begins at zero, and the legend."""
  axes.set(title=find_tasks([task])[0].title, xlabel=cost)
  axes.set_xlim(left=0)
  axes.spines[['top', 'right']].set_visible(False)
  axes.legend(fontsize='x-small')
