"""Scores with their intervals, and how often tools were used: records in, figures out."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolformer_jax.evaluation import statistics as intervals
from toolformer_jax.evaluation.answer_matching import judge
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.predict import Prediction
from toolformer_jax.evaluation.task import Task

ACCURACY, PERPLEXITY = 'accuracy', 'perplexity'


@dataclass(frozen=True)
class Score:
  """A figure of a table, with its interval of 95%.

  Attributes:
    task, group, arm: whose; group is '' for the whole task.
    measure: 'accuracy' in percent, or 'perplexity' of a token.
    value, low, high: the figure and its interval.
    count: questions or texts.
    tool_use: percentage of the questions with a call to a tool that had a result, by tool.
    failed_calls: percentage of the questions whose call had no result and was taken back.
    with_call, without_call: accuracy of the questions with and without a call that had a result;
      None if there are none.
  """

  task: str
  group: str
  arm: str
  measure: str
  value: float
  low: float
  high: float
  count: int
  tool_use: dict[str, float] = dataclasses.field(default_factory=dict)
  failed_calls: float = 0.0
  with_call: float | None = None
  without_call: float | None = None


@dataclass(frozen=True)
class Difference:
  """By how many percentage points `second` is better than `first` on the same questions."""

  task: str
  group: str
  first: str
  second: str
  value: float
  low: float
  high: float


def judged(task: Task, predictions: Sequence[Prediction],
           settings: EvaluationConfig) -> list[dict[str, Any]]:
  """Returns the predictions as JSON, with what was looked at and whether it is right."""
  records = []
  for prediction in predictions:
    verdict = judge(task.rule, prediction.prediction, prediction.answers, settings)
    records.append({**dataclasses.asdict(prediction), 'extracted': verdict.extracted,
                    'correct': verdict.correct})
  return records


def scores(task: Task, arm: Arm, records: Sequence[dict[str, Any]],
           settings: EvaluationConfig) -> list[Score]:
  """Returns the score of the whole and, where there are several, of each part."""
  groups = {'': records} | _by_group(records)
  single = _accuracy if task.rule else _perplexity
  return [single(task.name, group, arm.name, some, settings) for group, some in groups.items()]


def _by_group(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
  groups: dict[str, list] = {}
  for record in records:
    groups.setdefault(record['group'], []).append(record)
  return dict(sorted(groups.items())) if len(groups) > 1 else {}


def _accuracy(task: str, group: str, arm: str, records: Sequence[dict[str, Any]],
              settings: EvaluationConfig) -> Score:
  count, right = len(records), sum(record['correct'] for record in records)
  low, high = intervals.wilson(right, count)
  tools, failed = Counter(), 0
  answered: dict[bool, list[bool]] = {True: [], False: []}
  for record in records:
    made = {call['tool'] for call in record['calls'] if call['result'] is not None}
    tools.update(made)
    failed += any(call['result'] is None for call in record['calls'])
    answered[bool(made)].append(record['correct'])
  return Score(
      task, group, arm, ACCURACY, 100 * right / count, 100 * low, 100 * high, count,
      {tool: 100 * n / count for tool, n in sorted(tools.items())}, 100 * failed / count,
      *(100 * sum(some) / len(some) if some else None for some in answered.values()))


def _perplexity(task: str, group: str, arm: str, records: Sequence[dict[str, Any]],
                settings: EvaluationConfig) -> Score:
  logprobs, tokens = ([record[key] for record in records] for key in ('logprob', 'tokens'))
  low, high = intervals.perplexity_interval(
      logprobs, tokens, samples=settings.bootstrap_samples, seed=settings.seed)
  return Score(task, group, arm, PERPLEXITY, intervals.perplexity(logprobs, tokens), low, high,
               len(records))


def differences(task: Task, by_arm: Mapping[str, Sequence[dict[str, Any]]],
                settings: EvaluationConfig) -> list[Difference]:
  """Returns how much better Toolformer is than each other arm, on what both were asked."""
  best = by_arm.get('toolformer')
  if best is None or task.rule is None:
    return []
  found = []
  for arm, records in by_arm.items():
    if arm != 'toolformer':
      others = {record['id']: record for record in records}
      pairs = [(others[record['id']], record) for record in best if record['id'] in others]
      groups = {'': pairs} | {group: [pair for pair in pairs if pair[1]['group'] == group]
                              for group in _by_group([second for _, second in pairs])}
      found += [_difference(task.name, group, arm, some, settings)
                for group, some in groups.items() if some]
  return found


def _difference(task: str, group: str, arm: str, pairs: Sequence[tuple[dict, dict]],
                settings: EvaluationConfig) -> Difference:
  first, second = ([pair[side]['correct'] for pair in pairs] for side in (0, 1))
  low, high = intervals.paired_difference(
      first, second, samples=settings.bootstrap_samples, seed=settings.seed)
  return Difference(task, group, arm, 'toolformer', 100 * (sum(second) - sum(first)) / len(pairs),
                    100 * low, 100 * high)
