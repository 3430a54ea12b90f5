"""Tables of an evaluation, in Markdown and LaTeX: a row for each figure, a column for each arm."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from toolformer_jax.evaluation.arms import TITLES
from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.evaluation.scores import OUTCOMES, PERPLEXITY, Difference, Score
from toolformer_jax.evaluation.task import PerplexityTask, Task
from toolformer_jax.runtime.markdown import markdown_table

if TYPE_CHECKING:
  from toolformer_jax.evaluation.runner import EvaluationResult

Rows = list[list[str]]


def report(plan: EvaluationPlan, results: 'EvaluationResult') -> str:
  """Returns all tables and everything that a reader of a score has to know, in Markdown."""
  parts = ['# Evaluation', 'Percentage of right answers, or perplexity of a token; in brackets the '
           'interval of 95% over the questions (Wilson; of perplexities by bootstrap over texts).',
           markdown_table(score_rows(plan, results.scores))]
  if results.differences:
    parts += ['## Toolformer minus the other arms', 'Percentage points on the same questions; '
              'interval of 95% by bootstrap over them.',
              markdown_table(_difference_rows(plan, results))]
  if used := _tool_rows(plan, results.scores):
    parts += ['## Tools', 'Percentage of the questions with a call that had a result; with a call '
              'that had none; accuracy with and without one.', markdown_table(used)]
  if results.breakdowns:
    parts += ['## Word problems: what became of Toolformer\'s answers',
              markdown_table(breakdown_rows(plan, results))]
  parts += _missing_part(results)
  lines = [*results.notes, *_how(plan)]
  parts += ['## How it was done', '\n'.join(f'- {line}' for line in lines)]
  return '\n\n'.join(parts) + '\n'


def score_rows(plan: EvaluationPlan, scores: Sequence[Score]) -> Rows:
  """Returns the figures: the header first."""
  by_key = {(score.task, score.group, score.arm): score for score in scores}
  arms = [arm.name for arm in plan.arms]
  rows = [['', 'questions', *(TITLES[arm] for arm in arms)]]
  for task, group in lines_of(plan, scores):
    found = [by_key.get((task.name, group, arm)) for arm in arms]
    count = max(score.count for score in found if score)
    rows.append([task.title_of(group), f'{count:,}',
                 *(shown(score) if score else '-' for score in found)])
  return rows


def lines_of(plan: EvaluationPlan, figures: Iterable[Score | Difference]) -> list[tuple[Task, str]]:
  """Returns the tasks and parts that have figures, in the order of the plan."""
  there = {(figure.task, figure.group) for figure in figures}
  return [(task, group) for task in plan.tasks
          for group in ('', *dict(task.groups)) if (task.name, group) in there]


def shown(figure: Score | Difference) -> str:
  """Returns a figure with its interval."""
  digits = 2 if getattr(figure, 'measure', None) == PERPLEXITY else 1
  sign = '+' if isinstance(figure, Difference) else ''
  return (f'{figure.value:{sign}.{digits}f} [{figure.low:{sign}.{digits}f}, '
          f'{figure.high:{sign}.{digits}f}]')


def _difference_rows(plan: EvaluationPlan, results: 'EvaluationResult') -> Rows:
  by_key = {(one.task, one.group, one.first): one for one in results.differences}
  arms = [arm.name for arm in plan.arms if arm.name != 'toolformer']
  rows = [['', *(f'against {TITLES[arm]}' for arm in arms)]]
  for task, group in lines_of(plan, results.differences):
    found = [by_key.get((task.name, group, arm)) for arm in arms]
    rows.append([task.title_of(group), *(shown(one) if one else '-' for one in found)])
  return rows


def _tool_rows(plan: EvaluationPlan, scores: Sequence[Score]) -> Rows:
  """Returns how often Toolformer called which tool; nothing where it was not asked."""
  by_key = {(score.task, score.group): score for score in scores
            if score.arm == 'toolformer' and score.measure != PERPLEXITY}
  if not by_key:
    return []
  def percent(value: float | None) -> str:
    return '-' if value is None else f'{value:.1f}'
  rows = [['', *plan.tool_names, 'none', 'no result', 'right with a call', 'right without']]
  for task, group in lines_of(plan, by_key.values()):
    score = by_key[task.name, group]
    used = ['not allowed' if tool in task.without_tools else percent(score.tool_use.get(tool, 0.0))
            for tool in plan.tool_names]
    none = max(0.0, 100 - sum(score.tool_use.values()))
    rows.append([task.title_of(group), *used, percent(none), percent(score.failed_calls),
                 percent(score.with_call), percent(score.without_call)])
  return rows


def breakdown_rows(plan: EvaluationPlan, results: 'EvaluationResult') -> Rows:
  """Returns the percentage of each kind of answer, for each task."""
  rows = [['', *OUTCOMES]]
  for task in plan.tasks:
    if counts := results.breakdowns.get(task.name):
      rows.append([task.title, *(f'{100 * count / sum(counts.values()):.1f}'
                                 for count in counts.values())])
  return rows


def _missing_part(results: 'EvaluationResult') -> list[str]:
  gone = [f'- {name}: {reason}' for name, reason in
          [*results.skipped.items(), *results.failed.items()]]
  return ['## Not evaluated', '\n'.join(gone)] if gone else []


def _how(plan: EvaluationPlan) -> list[str]:
  """Returns checkpoints, rules, and every setting that the paper leaves open."""
  lines = [f'{TITLES[arm.name]}: `{arm.checkpoint}` '
           f'(sha256 {plan.checkpoint_hashes[arm.checkpoint][:12]})' for arm in plan.arms]
  for task in plan.tasks:
    lines.append(f'{task.title}: {_how_judged(task)} {task.remark}'.rstrip())
  if plan.limit:
    lines.append(f'Only the first {plan.limit} questions of each task were asked.')
  generation = {name: value for name, value in dataclasses.asdict(plan.generation).items()
                if name in ('top_k_api', 'max_calls', 'temperature', 'max_call_tokens')}
  for kind, values in (('GenerationConfig', generation),
                       ('EvaluationConfig', dataclasses.asdict(plan.config))):
    lines.append(f'{kind}: {", ".join(f"{name} = {value}" for name, value in values.items())}')
  return lines


def _how_judged(task: Task) -> str:
  """Returns rule, forbidden tools and prompt of a task."""
  if isinstance(task, PerplexityTask):
    return 'perplexity.'
  without = f'; without {", ".join(sorted(task.without_tools))}' if task.without_tools else ''
  prompt = f' Prompt: `{task.prompt}`.' if task.prompt else ''
  return f'judged by {task.rule}{without}.{prompt}'


def latex(rows: Rows) -> str:
  """Returns the same table for LaTeX with the package booktabs."""
  escapes = str.maketrans({character: f'\\{character}' for character in '&%$#_{}'})
  header, *body = [[cell.translate(escapes) for cell in row] for row in rows]
  def line(cells: Sequence[str]) -> str:
    return f'{" & ".join(cells)} \\\\'
  return '\n'.join([f'\\begin{{tabular}}{{l{"r" * (len(header) - 1)}}}', '\\toprule', line(header),
                    '\\midrule', *map(line, body), '\\bottomrule', '\\end{tabular}']) + '\n'
