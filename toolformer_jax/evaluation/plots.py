"""Bar charts of an evaluation with confidence intervals, as PNG and PDF. Needs matplotlib."""

from collections.abc import Sequence

import matplotlib.figure
from etils import epath

from toolformer_jax.evaluation.arms import TITLES
from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.evaluation.scores import PERPLEXITY, Score
from toolformer_jax.evaluation.task import Task
from toolformer_jax.runtime.paths import atomic_writer, make_directory

COLOURS = {'base': '#9aa5b1', 'cc': '#c9b458', 'disabled': '#6c8ebf', 'toolformer': '#b85450'}


def draw(plan: EvaluationPlan, scores: Sequence[Score], folder: epath.Path) -> list[epath.Path]:
  """Draws a chart of each task into `folder`; returns the files."""
  make_directory(folder)
  files = []
  for task in plan.tasks:
    of_task = [score for score in scores if score.task == task.name]
    if of_task:
      files += save(_bars(task, of_task), folder / task.name)
  return files


def save(figure: matplotlib.figure.Figure, path: epath.Path) -> list[epath.Path]:
  """Writes a figure to `path` with the suffixes .png and .pdf; returns the files."""
  files = [path.with_suffix(suffix) for suffix in ('.png', '.pdf')]
  for file in files:
    # Without a date, so that equal figures are equal files.
    metadata = {'CreationDate': None} if file.suffix == '.pdf' else None
    with atomic_writer(file, 'wb') as opened:
      figure.savefig(opened, format=file.suffix[1:], dpi=150, bbox_inches='tight',
                     metadata=metadata)
  return files


def _bars(task: Task, scores: Sequence[Score]) -> matplotlib.figure.Figure:
  groups = list(dict.fromkeys(score.group for score in scores))
  arms = list(dict.fromkeys(score.arm for score in scores))
  figure = matplotlib.figure.Figure(figsize=(1.8 + 1.2 * len(groups), 3.2))
  axes = figure.add_subplot()
  width = 0.8 / len(arms)
  for score in scores:
    x = groups.index(score.group) + (arms.index(score.arm) - (len(arms) - 1) / 2) * width
    # Rounding may leave a score slightly outside of its interval.
    whiskers = [[max(0.0, score.value - score.low)], [max(0.0, score.high - score.value)]]
    axes.bar(x, score.value, width, color=COLOURS[score.arm], yerr=whiskers, capsize=2)
  for arm in arms:
    axes.bar(0, 0, 0, color=COLOURS[arm], label=TITLES[arm])
  axes.set_xticks(range(len(groups)), [task.title_of(group) for group in groups])
  axes.set_ylabel('perplexity' if scores[0].metric == PERPLEXITY else '% correct')
  axes.set_title(task.title)
  axes.legend(fontsize='small')
  axes.spines[['top', 'right']].set_visible(False)
  return figure
