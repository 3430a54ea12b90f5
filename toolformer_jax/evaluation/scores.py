"""Scores with their intervals, and how often tools were used: records in, figures out."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from toolformer_jax.evaluation import statistics
from toolformer_jax.evaluation.answer_matching import numbers
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.predict import Prediction
from toolformer_jax.evaluation.task import PerplexityTask, QuestionTask, Task

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


def judged(task: QuestionTask, predictions: Sequence[Prediction],
           config: EvaluationConfig) -> list[dict[str, Any]]:
  """Returns the predictions as JSON, with the part that was compared and whether it is right."""
  records = []
  for prediction in predictions:
    verdict = task.rule.judge(prediction.prediction, prediction.answers, config)
    records.append({**dataclasses.asdict(prediction), 'extracted': verdict.extracted,
                    'correct': verdict.correct})
  return records


def scores(task: Task, arm: Arm, records: Sequence[dict[str, Any]],
           config: EvaluationConfig) -> list[Score]:
  """Returns the score of the whole and, where there are several, of each part."""
  groups = {'': records} | _by_group(records)
  single = _perplexity if isinstance(task, PerplexityTask) else _accuracy
  return [single(task.name, group, arm.name, some, config) for group, some in groups.items()]


def _by_group(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
  groups: dict[str, list] = {}
  for record in records:
    groups.setdefault(record['group'], []).append(record)
  return dict(sorted(groups.items())) if len(groups) > 1 else {}


def _accuracy(task: str, group: str, arm: str, records: Sequence[dict[str, Any]],
              config: EvaluationConfig) -> Score:
  count, right = len(records), sum(record['correct'] for record in records)
  low, high = statistics.wilson(right, count)
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
                config: EvaluationConfig) -> Score:
  logprobs, tokens = ([record[key] for record in records] for key in ('logprob', 'tokens'))
  low, high = statistics.perplexity_interval(
      logprobs, tokens, samples=config.bootstrap_samples, seed=config.seed)
  return Score(task, group, arm, PERPLEXITY, statistics.perplexity(logprobs, tokens), low, high,
               len(records))


def differences(task: Task, by_arm: Mapping[str, Sequence[dict[str, Any]]],
                config: EvaluationConfig) -> list[Difference]:
  """Returns how much better Toolformer is than each other arm, on what both were asked."""
  best = by_arm.get('toolformer')
  if best is None or isinstance(task, PerplexityTask):
    return []
  found = []
  for arm, records in by_arm.items():
    if arm != 'toolformer':
      others = {record['id']: record for record in records}
      pairs = [(others[record['id']], record) for record in best if record['id'] in others]
      groups = {'': pairs} | {group: [pair for pair in pairs if pair[1]['group'] == group]
                              for group in _by_group([second for _, second in pairs])}
      found += [_difference(task.name, group, arm, some, config)
                for group, some in groups.items() if some]
  return found


def _difference(task: str, group: str, arm: str, pairs: Sequence[tuple[dict, dict]],
                config: EvaluationConfig) -> Difference:
  first, second = ([pair[side]['correct'] for pair in pairs] for side in (0, 1))
  low, high = statistics.paired_difference(
      first, second, samples=config.bootstrap_samples, seed=config.seed)
  return Difference(task, group, arm, 'toolformer', 100 * (sum(second) - sum(first)) / len(pairs),
                    100 * low, 100 * high)


# What became of word problems with a calculator.
RIGHT, NO_CALL, NO_RESULT, WRONG_ARGUMENT, IGNORED, EXTRACTION = OUTCOMES = (
    'right', 'no call', 'call without a result', 'wrong argument', 'right result, not used',
    'right number, not the one that counts')


def breakdown(records: Sequence[dict[str, Any]], config: EvaluationConfig) -> dict[str, int]:
  """Returns how many of the judged predictions are of each of `OUTCOMES`."""
  counts = Counter(_outcome(record, config) for record in records)
  return {kind: counts[kind] for kind in OUTCOMES}


def _outcome(record: dict[str, Any], config: EvaluationConfig) -> str:
  if record['correct']:
    return RIGHT
  results = [call['result'] for call in record['calls'] if call['result'] is not None]
  if not results:
    return NO_RESULT if record['calls'] else NO_CALL
  wanted = [value for answer in record['answers'] for value in numbers(answer)[:1]]
  def has(text: str) -> bool:
    tolerance = Fraction(str(config.number_tolerance))
    return any(abs(value - other) <= tolerance for value in numbers(text) for other in wanted)
  if has(record['prediction']):
    return EXTRACTION
  return IGNORED if any(map(has, results)) else WRONG_ARGUMENT
