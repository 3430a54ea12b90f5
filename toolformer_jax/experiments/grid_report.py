"""The report of a grid: means over seeds, differences between cells, and what failed."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.answer_matching import FirstNumber
from toolformer_jax.evaluation.arms import TITLES
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.scores import OUTCOMES, outcome_of
from toolformer_jax.evaluation.seed_statistics import (
  SeededRecords,
  SeededScore,
  seeded_difference,
  seeded_score,
)
from toolformer_jax.evaluation.tables import Rows, latex
from toolformer_jax.evaluation.task import QuestionTask
from toolformer_jax.evaluation.tasks import find_tasks
from toolformer_jax.experiments.grid import UNCHANGED
from toolformer_jax.experiments.grid_tables import call_rows, part_rows, shown
from toolformer_jax.experiments.results import CellResult, ModelSize, Records
from toolformer_jax.runtime.markdown import markdown_table

Group = tuple[str, str]  # a size and an ablation
_OF_DIFFERENCE = ('difference', 'seeds', 'detectable')


@dataclass(frozen=True)
class GridResult:
  """The results of all cells of a grid.

  Attributes:
    title: of the report.
    cells: the results, those that failed included.
    config: number of samples and seed of the bootstrap.
    cell_report: the report of the only cell; '' if there are several.
  """

  title: str
  cells: Sequence[CellResult]
  config: EvaluationConfig
  cell_report: str = ''

  @property
  def is_compressed(self) -> bool:
    """Whether some cell makes its models smaller."""
    return any(not one.cell.experiment.compression.is_neutral for one in self.cells)

  def groups(self) -> list[Group]:
    """Returns the size and the ablation of every group of seeds, in the order of the grid."""
    return list(dict.fromkeys(one.cell.factors.group for one in self.cells))

  def tasks(self) -> list[str]:
    """Returns the names of the tasks that have a record."""
    return list(dict.fromkeys(task for one in self.cells for task, _ in one.records))

  def arms(self) -> list[str]:
    """Returns the arms that have a record, in the order of the tables."""
    found = {arm for one in self.cells for _, arm in one.records}
    return [arm for arm in TITLES if arm in found]

  def records(self, group: Group, task: str, arm: str, part: str = '') -> SeededRecords | None:
    """Returns the records of all seeds of a group; None if there are none.

    Args:
      group: size and ablation.
      task, arm: what was evaluated.
      part: of the task, such as a language; '' for the whole task.
    """
    return self._of_seeds(
        group, task, arm, lambda records: [one for one in records if part in ('', one['group'])])

  def _of_seeds(self, group: Group, task: str, arm: str, change: Callable[[Records], Records]
                ) -> SeededRecords | None:
    cells = [one for one in self.cells
             if one.cell.factors.group == group and one.records.get((task, arm))]
    records = [change(one.records[task, arm]) for one in cells]
    return SeededRecords.of(records, [one.models[arm] for one in cells]) if any(records) else None

  def share(self, group: Group, task: str, arm: str, has: Callable[[dict[str, Any]], bool]
            ) -> SeededScore | None:
    """Returns the percentage of an arm's answers for which `has` is true; None without records."""
    found = self._of_seeds(
        group, task, arm, lambda records: [{**one, 'correct': has(one)} for one in records])
    return seeded_score(found, **self._bootstrap) if found else None

  def outcome(self, group: Group, task: str, outcome: str) -> SeededScore | None:
    """Returns the percentage of Toolformer's answers with an outcome; None without records."""
    return self.share(group, task, 'toolformer',
                      lambda record: outcome_of(record, self.config) == outcome)

  def size(self, group: Group, arm: str) -> ModelSize | None:
    """Returns the size of an arm's models of a group, which are alike; None if it has no record."""
    return next((one.sizes[arm] for one in self.cells
                 if one.cell.factors.group == group and arm in one.sizes), None)

  def score(self, group: Group, task: str, arm: str, part: str = '') -> SeededScore | None:
    """Returns the mean of a group's seeds; arguments and None as for `records`."""
    records = self.records(group, task, arm, part)
    return None if records is None else seeded_score(records, **self._bootstrap)

  def difference(self, first: tuple[Group, str], second: tuple[Group, str], task: str
                 ) -> SeededScore | None:
    """Returns how much better a group with an arm is than another; None without records."""
    before, after = (self.records(group, task, arm) for group, arm in (first, second))
    if before is None or after is None:
      return None
    return seeded_difference(before, after, **self._bootstrap)

  @functools.cached_property
  def report(self) -> str:
    """All tables in Markdown, the content of report.md."""
    return report(self)

  def raise_failures(self) -> None:
    """Raises UserError if a cell failed."""
    failed = [f'{one.cell.factors.folder}: {one.failure}' for one in self.cells if one.failure]
    if failed:
      raise UserError(
          f'{len(failed)} of {len(self.cells)} cells are incomplete: {"; ".join(failed)}')

  @property
  def _bootstrap(self) -> Mapping[str, int]:
    return {'samples': self.config.bootstrap_samples, 'seed': self.config.seed}


def report(result: GridResult) -> str:
  """Returns all tables in Markdown."""
  parts = [f'# {result.title}',
           'Percentage of correct answers, or perplexity per token. In brackets the 95% interval '
           'by a bootstrap over seeds and questions; with one seed, over questions alone.',
           markdown_table(score_rows(result))]
  if len(rows := gain_rows(result)) > 1:
    parts += ['## Toolformer minus the other arms',
              'Percentage points on the same questions. "Detectable" is the smallest difference '
              'that this grid would find in 80% of the cases.', markdown_table(rows)]
  if len(rows := ablation_rows(result)) > 1:
    parts += ['## Ablations', f'The arm Toolformer, minus that of `{UNCHANGED}` of the same size.',
              markdown_table(rows)]
  for task, title in zip(result.tasks(), _titles(result.tasks()), strict=True):
    if len(rows := part_rows(result, task)) > 1:
      parts += [f'## Parts of {title}', markdown_table(rows)]
  if len(rows := call_rows(result)) > 1:
    parts += ["## Toolformer's answers with a call", 'In percent.', markdown_table(rows)]
  if len(rows := outcome_rows(result)) > 1:
    parts += ["## Toolformer's answers by outcome", markdown_table(rows)]
  if result.is_compressed:
    parts += ['## Sizes', 'Of the weights, as files: those of few bits as they are, others in '
              'float32.', markdown_table(size_rows(result))]
  parts += _not_evaluated(result)
  if result.cell_report:
    parts.append(f'#{result.cell_report.rstrip()}'.replace('\n#', '\n##'))  # one level below
  return '\n\n'.join(parts) + '\n'


def score_rows(result: GridResult) -> Rows:
  """Returns a row for each group and arm, a column for each task."""
  tasks = result.tasks()
  rows = [['size', 'ablation', 'model', 'seeds', *_titles(tasks)]]
  for group in result.groups():
    for arm in result.arms():
      scores = [result.score(group, task, arm) for task in tasks]
      seeds = max((score.seeds for score in scores if score), default=0)
      if seeds:
        rows.append([*group, TITLES[arm], str(seeds), *map(shown, scores)])
    if not any(result.records(group, task, arm) for task in tasks for arm in result.arms()):
      rows.append([*group, '-', '0', *['-'] * len(tasks)])
  return rows


def score_objects(result: GridResult) -> list[dict[str, Any]]:
  """Returns the scores of `score_rows` as JSON objects, the content of scores.json."""
  return [{'size': size, 'ablation': ablation, 'task': task, 'arm': arm,
           'score': dataclasses.asdict(score)}
          for size, ablation in result.groups() for arm in result.arms()
          for task in result.tasks() if (score := result.score((size, ablation), task, arm))]


def gain_rows(result: GridResult) -> Rows:
  """Returns how much better Toolformer is than the other arms of each group."""
  rows = [['size', 'ablation', 'minus', 'task', *_OF_DIFFERENCE]]
  for group in result.groups():
    for arm in (arm for arm in result.arms() if arm != 'toolformer'):
      rows += [[*group, TITLES[arm], *cells]
               for cells in _difference_cells(result, (group, arm), (group, 'toolformer'))]
  return rows


def ablation_rows(result: GridResult) -> Rows:
  """Returns the effect of each ablation on Toolformer."""
  rows = [['size', 'ablation', 'task', *_OF_DIFFERENCE]]
  for size, ablation in result.groups():
    if ablation != UNCHANGED:
      rows += [[size, ablation, *cells] for cells in _difference_cells(
          result, ((size, UNCHANGED), 'toolformer'), ((size, ablation), 'toolformer'))]
  return rows


def _difference_cells(result: GridResult, first: tuple[Group, str], second: tuple[Group, str]
                      ) -> Iterator[list[str]]:
  """Yields for each task its title, and what `_OF_DIFFERENCE` names."""
  for task, title in zip(result.tasks(), _titles(result.tasks()), strict=True):
    if found := result.difference(first, second, task):
      yield [title, shown(found, sign='+'), str(found.seeds), f'{found.detectable:.1f}']


def outcome_rows(result: GridResult) -> Rows:
  """Returns what became of Toolformer's answers to each task of word problems."""
  rows = [['size', 'ablation', 'task', *OUTCOMES]]
  tasks = [task for name in result.tasks() for task in find_tasks([name])
           if isinstance(task, QuestionTask) and isinstance(task.matcher, FirstNumber)]
  for group in result.groups():
    for task in tasks:
      found = [result.outcome(group, task.name, outcome) for outcome in OUTCOMES]
      if any(found):
        rows.append([*group, task.title, *map(shown, found)])
  return rows


def size_rows(result: GridResult) -> Rows:
  """Returns the size of the models of each group; arms of one size share a row."""
  rows = [['size', 'ablation', 'model', 'parameters', 'not zero', 'bytes of weights']]
  for group in result.groups():
    titles: dict[ModelSize, list[str]] = {}
    for arm in result.arms():
      if found := result.size(group, arm):
        titles.setdefault(found, []).append(TITLES[arm])
    rows += [[*group, ', '.join(names), f'{size.parameters:,}', f'{size.nonzero:,}',
              f'{size.weight_bytes:,}'] for size, names in titles.items()]
  return rows


def _titles(tasks: Sequence[str]) -> list[str]:
  return [find_tasks([task])[0].title for task in tasks]


def _not_evaluated(result: GridResult) -> list[str]:
  lines = [f'- {one.cell.factors.folder}: {one.failure}' for one in result.cells if one.failure]
  skipped: dict[tuple[str, str], list[str]] = {}
  for one in result.cells:
    for reason in one.skipped.items():
      skipped.setdefault(reason, []).append(one.cell.factors.folder)
  evaluated = sum(bool(one.records or one.skipped) for one in result.cells)
  for (name, why), folders in skipped.items():
    where = '' if len(folders) == evaluated else f' ({", ".join(folders)})'
    lines.append(f'- {name}{where}: {why}')
  return ['## Not evaluated', '\n'.join(lines)] if lines else []


def latex_table(result: GridResult) -> str:
  """Returns the scores as a table in LaTeX."""
  return latex(score_rows(result))
