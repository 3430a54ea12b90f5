"""Our figures beside the paper's: scores, tool use, and whether the findings agree."""

from toolformer_jax.evaluation.arms import TITLES
from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.evaluation.scores import Difference
from toolformer_jax.evaluation.tables import (
  Rows,
  breakdown_rows,
  format_score,
  scored_groups,
  source_lines,
)
from toolformer_jax.evaluation.task import Task
from toolformer_jax.experiments import paper
from toolformer_jax.runtime.markdown import markdown_table


def report(title: str, plan: EvaluationPlan, results: EvaluationResult) -> str:
  """Returns our figures beside the paper's, in Markdown."""
  parts = [f'# {title}', markdown_table(figure_rows(plan, results))]
  if len(findings := finding_rows(plan, results)) > 1:
    parts += ['## Findings', markdown_table(findings)]
  if len(used := tool_use_rows(plan, results)) > 1:
    parts += ['## Tool use', markdown_table(used)]
  if results.breakdowns:
    parts += ["## Toolformer's answers by outcome", markdown_table(breakdown_rows(plan, results))]
  if data := source_lines(plan.tasks, results.sources):
    parts += ['## Data', '\n'.join(data)]
  if gone := {**results.skipped, **results.failed}:
    parts += ['## Not evaluated', '\n'.join(f'- {name}: {why}' for name, why in gone.items())]
  note = 'Figures in brackets: 95%.'
  return '\n\n'.join([*parts, note + (f' The first {plan.limit} questions of each task.'
                                      if plan.limit else '')])


def published(task: Task, group: str) -> dict[str, float]:
  """Returns the paper's figures for a part of a task, by arm."""
  return paper.SCORES.get((paper.STAND_INS.get(task.name, task.name), group), {})


def figure_rows(plan: EvaluationPlan, results: EvaluationResult) -> Rows:
  """Returns our figure and the paper's for each part and arm, after a header."""
  ours = {(score.task, score.group, score.arm): score for score in results.scores}
  rows = [['', 'model', 'questions', 'ours', 'paper (GPT-J)']]
  for task, group in _all_lines(plan, results):
    theirs = published(task, group)
    for arm in plan.arms:
      score = ours.get((task.name, group, arm.name))
      if score or arm.name in theirs:
        rows.append([_title(task, group), TITLES[arm.name], f'{score.count:,}' if score else '-',
                     format_score(score) if score else '-', _shown_or_dash(theirs.get(arm.name))])
    rows += [[_title(task, group), larger, '', '', str(theirs[larger])]
             for larger in (paper.OPT, paper.GPT3) if larger in theirs]
  return rows


def _all_lines(plan: EvaluationPlan, results: EvaluationResult) -> list[tuple[Task, str]]:
  """Returns the parts that have a figure of ours, or else of the paper."""
  there = scored_groups(plan, results.scores)
  for task in plan.tasks:
    if task.name not in {one.name for one, _ in there}:
      there += [(task, group) for group in ('', *dict(task.groups)) if published(task, group)]
  return sorted(there, key=lambda line: list(plan.tasks).index(line[0]))


def _title(task: Task, group: str) -> str:
  stands_for = ' (for MLQA)' if task.name in paper.STAND_INS else ''
  return task.title_of(group) + stands_for


def _shown_or_dash(value: float | None) -> str:
  return '-' if value is None else str(value)


def finding_rows(plan: EvaluationPlan, results: EvaluationResult) -> Rows:
  """Returns the gain of tools over each other arm for each part, ours and the paper's."""
  ours = {(one.task, one.group, one.first): one for one in results.differences}
  rows = [['', 'Toolformer minus', 'ours', 'paper', 'finding']]
  for task, group in scored_groups(plan, results.differences):
    theirs = published(task, group)
    for arm in plan.arms:
      difference = ours.get((task.name, group, arm.name))
      if difference and arm.name in theirs and paper.TOOLFORMER in theirs:
        gain = theirs[paper.TOOLFORMER] - theirs[arm.name]
        rows.append([_title(task, group), TITLES[arm.name], format_score(difference),
                     f'{gain:+.1f}', finding(difference, gain)])
  return rows


def finding(ours: Difference, theirs: float) -> str:
  """Returns whether our difference has the sign of the paper's, by our confidence interval."""
  if ours.is_degenerate:
    return 'undecided: too few questions'
  if ours.low <= 0 <= ours.high:
    return 'undecided: ours may be 0'
  return 'the same direction' if (ours.value > 0) == (theirs > 0) else 'the opposite direction'


def tool_use_rows(plan: EvaluationPlan, results: EvaluationResult) -> Rows:
  """Returns how often each tool was called, beside the paper's figure."""
  rows = [['', 'tool', 'ours: % of questions', 'paper']]
  for score in results.scores:
    if score.arm == 'toolformer':
      task = next(task for task in plan.tasks if task.name == score.task)
      name = paper.STAND_INS.get(task.name, task.name) + (f'/{score.group}' if score.group else '')
      theirs = paper.TOOL_USE.get(name, {})
      for tool in dict.fromkeys([*score.tool_use, *theirs]):
        rows.append([task.title_of(score.group), tool, f'{score.tool_use.get(tool, 0.0):.1f}',
                     theirs.get(tool, '-')])
  return rows
