"""Tables of an evaluation in Markdown and LaTeX: a row for each task, a column for each arm."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from toolformer_jax.evaluation.arms import TITLES
from toolformer_jax.evaluation.departures import evaluation_departures
from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.evaluation.scores import (
  OUTCOMES,
  PERPLEXITY,
  Difference,
  Score,
  is_degenerate,
)
from toolformer_jax.evaluation.task import (
  ClassificationTask,
  PerplexityTask,
  QuestionTask,
  Task,
  TextTask,
)
from toolformer_jax.evaluation.text_metrics import TextMetric
from toolformer_jax.runtime.departures import departures_section
from toolformer_jax.runtime.markdown import markdown_table

Rows = list[list[str]]


def report(plan: EvaluationPlan, result: EvaluationResult) -> str:
  """Returns all tables and how the scores were computed, in Markdown."""
  parts = ['# Evaluation']
  if len(rows := score_rows(plan, result.scores)) > 1:
    parts += ['Percentage of correct answers, or perplexity per token; in brackets the 95% '
              'confidence interval (Wilson; of perplexities by bootstrap over texts).',
              markdown_table(rows)]
  if len(rows := _difference_rows(plan, result)) > 1:
    parts += ['## Toolformer minus the other arms', 'Percentage points on the same questions; '
              '95% confidence interval by paired bootstrap.', markdown_table(rows)]
  if tool_rows := _tool_use_rows(plan, result.scores):
    parts += ['## Tools', 'Percentage of the questions with a call that returned a result; with a '
              'call that returned none; accuracy with and without a result.',
              markdown_table(tool_rows)]
  if result.breakdowns:
    parts += ['## Word problems: outcomes of Toolformer\'s predictions',
              markdown_table(breakdown_rows(plan, result))]
  if result.label_metrics:
    parts += ['## Classification', 'Means over the labels (macro), in percent; the 95% interval of '
              'F1 by bootstrap over texts. The label that is mistaken most often, and for which.',
              markdown_table(_label_rows(plan, result))]
  if result.text_metrics:
    parts += ['## Written texts', 'From 0 to 100; in brackets the 95% interval by bootstrap over '
              'texts. The first line of what was written is compared with the references.',
              markdown_table(_text_rows(plan, result))]
  parts += _not_evaluated_section(result)
  parts += ['## Data', '\n'.join(source_lines(plan.tasks, result.sources))]
  lines = [*result.notes, *_settings_lines(plan)]
  parts += [departures_section(evaluation_departures(plan)),
            '## Settings', '\n'.join(f'- {line}' for line in lines)]
  return '\n\n'.join(parts) + '\n'


def score_rows(plan: EvaluationPlan, scores: Sequence[Score]) -> Rows:
  """Returns the scores of each task and group; the first row is the header.

  Written texts have metrics of their own: few of them are equal to a reference.
  """
  by_key = {(score.task, score.group, score.arm): score for score in scores}
  arms = [arm.name for arm in plan.arms]
  rows = [['', 'questions', *(TITLES[arm] for arm in arms)]]
  for task, group in scored_groups(plan, scores):
    if isinstance(task, TextTask):
      continue
    by_arm = [by_key.get((task.name, group, arm)) for arm in arms]
    count = max(score.count for score in by_arm if score)
    rows.append([task.title_of(group), f'{count:,}',
                 *(format_score(score) if score else '-' for score in by_arm)])
  return rows


def scored_groups(plan: EvaluationPlan, scores: Iterable[Score | Difference]
                  ) -> list[tuple[Task, str]]:
  """Returns the tasks and groups that have a score, in the order of the plan."""
  scored = {(score.task, score.group) for score in scores}
  return [(task, group) for task in plan.tasks
          for group in ('', *dict(task.groups)) if (task.name, group) in scored]


def format_score(score: Score | Difference) -> str:
  """Returns a score with its interval."""
  digits = 2 if getattr(score, 'metric', None) == PERPLEXITY else 1
  sign = '+' if isinstance(score, Difference) else ''
  value = f'{score.value:{sign}.{digits}f}'
  if score.is_degenerate:
    return f'{value} [too few {"texts" if digits == 2 else "questions"}]'
  return f'{value} [{score.low:{sign}.{digits}f}, {score.high:{sign}.{digits}f}]'


def _difference_rows(plan: EvaluationPlan, result: EvaluationResult) -> Rows:
  by_key = {(difference.task, difference.group, difference.first): difference
            for difference in result.differences}
  arms = [arm.name for arm in plan.arms if arm.name != 'toolformer']
  rows = [['', *(f'against {TITLES[arm]}' for arm in arms)]]
  for task, group in scored_groups(plan, result.differences):
    if isinstance(task, TextTask):
      continue
    by_arm = [by_key.get((task.name, group, arm)) for arm in arms]
    rows.append([task.title_of(group), *(format_score(difference) if difference else '-'
                                         for difference in by_arm)])
  return rows


def _tool_use_rows(plan: EvaluationPlan, scores: Sequence[Score]) -> Rows:
  """Returns how often Toolformer called each tool; no rows without this arm or without tools."""
  by_key = {(score.task, score.group): score for score in scores
            if score.arm == 'toolformer' and score.metric != PERPLEXITY}
  if not by_key or not plan.tool_names:
    return []
  def percent(value: float | None) -> str:
    return '-' if value is None else f'{value:.1f}'
  rows = [['', *plan.tool_names, 'none', 'no result', 'correct with a call', 'correct without']]
  for task, group in scored_groups(plan, by_key.values()):
    if not isinstance(task, QuestionTask):
      continue  # a perplexity has no calls
    score = by_key[task.name, group]
    tools = ['not allowed' if tool in task.without_tools else percent(score.tool_use.get(tool, 0.0))
             for tool in plan.tool_names]
    none = max(0.0, 100 - sum(score.tool_use.values()))
    rows.append([task.title_of(group), *tools, percent(none), percent(score.failed_calls),
                 percent(score.with_call), percent(score.without_call)])
  return rows


def breakdown_rows(plan: EvaluationPlan, result: EvaluationResult) -> Rows:
  """Returns the percentage of each outcome, for each task of word problems."""
  rows = [['', *OUTCOMES]]
  for task in plan.tasks:
    if counts := result.breakdowns.get(task.name):
      rows.append([task.title, *(f'{100 * count / sum(counts.values()):.1f}'
                                 for count in counts.values())])
  return rows


def _label_rows(plan: EvaluationPlan, result: EvaluationResult) -> Rows:
  """Returns the metrics of each task of classification and arm."""
  rows = [['', 'model', 'precision', 'recall', 'F1', 'most frequent mistake']]
  for task in plan.tasks:
    for arm, found in result.label_metrics.get(task.name, {}).items():
      mistake = found.confusions[0] if found.confusions else None
      rows.append([task.title, TITLES[arm], f'{found.precision:.1f}', f'{found.recall:.1f}',
                   f'{found.f1:.1f} [{found.low:.1f}, {found.high:.1f}]',
                   f'{mistake.label} as {mistake.predicted}: {mistake.count}' if mistake else '-'])
  return rows


def _text_rows(plan: EvaluationPlan, result: EvaluationResult) -> Rows:
  """Returns the metrics of each task of writing, its groups and arms, and of the baselines."""
  rows = [['', 'model', 'metric', 'value']]
  counts = {(score.task, score.group): score.count for score in result.scores}
  for task, group in ((one, group) for one in plan.tasks for group in ('', *dict(one.groups))):
    key = f'{task.name}.{group}' if group else task.name
    for arm, metrics in result.text_metrics.get(key, {}).items():
      rows += [[task.title_of(group), TITLES.get(arm, arm), name,
                _format_metric(metric, counts[task.name, group])]
               for name, metric in metrics.items()]
  return rows


def _format_metric(metric: TextMetric, count: int) -> str:
  """Returns a metric of `count` written texts with its interval."""
  if is_degenerate(metric.low, metric.high, count):
    return f'{metric.value:.1f} [too few texts]'
  return f'{metric.value:.1f} [{metric.low:.1f}, {metric.high:.1f}]'


def source_lines(tasks: Sequence[Task], sources: Mapping[str, str]) -> list[str]:
  """Returns for each task that was evaluated how many questions of which files it has."""
  return [f'- {task.title}: {sources[task.name]}' for task in tasks if task.name in sources]


def _not_evaluated_section(result: EvaluationResult) -> list[str]:
  reasons = {**result.skipped, **result.failed}
  lines = [f'- {name}: {reason}' for name, reason in reasons.items()]
  return ['## Not evaluated', '\n'.join(lines)] if lines else []


def _settings_lines(plan: EvaluationPlan) -> list[str]:
  """Returns checkpoints, how tasks are scored, and each setting that the paper leaves open."""
  lines = [f'{TITLES[arm.name]}: `{arm.checkpoint}` '
           f'(sha256 {plan.checkpoint_hashes[arm.checkpoint][:12]})' for arm in plan.arms]
  for task in plan.tasks:
    lines.append(f'{task.title}: {_how_scored(task)} {task.remark}'.rstrip())
  if plan.limit:
    lines.append(f'Only the first {plan.limit} examples of each task were used.')
  lines.append(f'ModelConfig: dtype = {plan.dtype}')
  generation = {name: value for name, value in dataclasses.asdict(plan.generation).items()
                if name in ('top_k_api', 'max_calls', 'temperature', 'max_call_tokens')}
  for kind, values in (('GenerationConfig', generation),
                       ('EvaluationConfig', dataclasses.asdict(plan.config))):
    lines.append(f'{kind}: {", ".join(f"{name} = {value}" for name, value in values.items())}')
  return lines


def _how_scored(task: Task) -> str:
  """Returns matcher, forbidden tools and prompt of a task."""
  if isinstance(task, PerplexityTask):
    return 'perplexity.'
  if isinstance(task, ClassificationTask):
    return f'the likeliest label. Prompt: `{task.prompt}`.'
  if isinstance(task, TextTask):
    return f'{", ".join(task.metrics)} of the first line. Prompt: `{task.prompt}`.'
  without = f'; without {", ".join(sorted(task.without_tools))}' if task.without_tools else ''
  prompt = f' Prompt: `{task.prompt}`.' if task.prompt else ''
  return f'compares the {task.matcher}{without}.{prompt}'


def latex(rows: Rows) -> str:
  """Returns a table in LaTeX, for the package booktabs."""
  escapes = str.maketrans({character: f'\\{character}' for character in '&%$#_{}'})
  header, *body = [[cell.translate(escapes) for cell in row] for row in rows]
  def line(cells: Sequence[str]) -> str:
    return f'{" & ".join(cells)} \\\\'
  return '\n'.join([f'\\begin{{tabular}}{{l{"r" * (len(header) - 1)}}}', '\\toprule', line(header),
                    '\\midrule', *map(line, body), '\\bottomrule', '\\end{tabular}']) + '\n'
