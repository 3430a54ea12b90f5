"""Tables of a grid: what trainings took, how often tools were called, scores of parts of tasks."""

from typing import TYPE_CHECKING

from toolformer_jax.evaluation.arms import TITLES
from toolformer_jax.evaluation.seed_statistics import SeededScore
from toolformer_jax.evaluation.tables import Rows
from toolformer_jax.evaluation.tasks import find_tasks
from toolformer_jax.runtime.markdown import markdown_table

if TYPE_CHECKING:
  from toolformer_jax.experiments.grid_report import GridResult


def training_report(result: 'GridResult') -> str:
  """Returns what trainings took, the content of training.md; '' if nothing was trained.

  Seconds differ from run to run, so that they are not in report.md.
  """
  if len(rows := _training_rows(result)) == 1:
    return ''
  about = ('Memory of a step: weights, optimizer, activations and batch, on each device, as the '
           'compiler plans it. Seconds: the duration of all steps, as a mean over seeds.')
  return f'# Training\n\n{about}\n\n{markdown_table(rows)}\n'


def _training_rows(result: 'GridResult') -> Rows:
  """Returns what the training of each group took."""
  rows = [['size', 'ablation', 'seeds', 'trained weights', 'MB of a step', 'seconds']]
  for group in result.groups():
    found = [one.training for one in result.cells
             if one.cell.factors.group == group and one.training]
    if found:
      sizes = [one.step_bytes for one in found if one.step_bytes]
      rows.append([*group, str(len(found)), f'{found[0].weights:,}',
                   f'{max(sizes) / 1e6:,.0f}' if sizes else '-',
                   f'{sum(one.seconds for one in found) / len(found):,.0f}'])
  return rows


def call_rows(result: 'GridResult') -> Rows:
  """Returns how many of Toolformer's answers have a call, whether or not it returned a result."""
  tasks = [task for task in result.tasks() if any(
      record.get('calls') for one in result.cells
      for record in one.records.get((task, 'toolformer'), ()))]
  rows = [['size', 'ablation', *(find_tasks([task])[0].title for task in tasks)]]
  for group in result.groups() if tasks else ():
    found = [result.share(group, task, 'toolformer', lambda record: bool(record['calls']))
             for task in tasks]
    if any(found):
      rows.append([*group, *map(shown, found)])
  return rows


def part_rows(result: 'GridResult', task: str) -> Rows:
  """Returns the scores of the parts of a task, such as languages, a column for each."""
  there = {record['group'] for one in result.cells for (name, _), records in one.records.items()
           if name == task for record in records}
  parts = {part: title for part, title in find_tasks([task])[0].groups if part in there}
  rows = [['size', 'ablation', 'model', *parts.values()]]
  for group in result.groups() if len(parts) > 1 else ():
    for arm in result.arms():
      found = [result.score(group, task, arm, part) for part in parts]
      if any(found):
        rows.append([*group, TITLES[arm], *map(shown, found)])
  return rows


def shown(score: SeededScore | None, sign: str = '') -> str:
  """Returns a score with its interval."""
  if score is None:
    return '-'
  return f'{score.value:{sign}.1f} [{score.low:{sign}.1f}, {score.high:{sign}.1f}]'
