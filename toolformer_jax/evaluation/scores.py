"""Scores with confidence intervals and tool use, from the predictions of an evaluation."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from toolformer_jax.data.numbers import find_numbers
from toolformer_jax.evaluation import confidence_intervals
from toolformer_jax.evaluation.answer_matching import first_number
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.predict import Prediction
from toolformer_jax.evaluation.task import PerplexityTask, QuestionTask, Task

ACCURACY, PERPLEXITY = 'accuracy', 'perplexity'
_FEW = 30  # examples: fewer that are all alike tell nothing of others


@dataclass(frozen=True)
class Score:
  """A metric of one arm on a task or a group of it, with its 95% confidence interval.

  Attributes:
    task, group, arm: what was evaluated; group is '' for the whole task.
    metric: 'accuracy' in percent, or 'perplexity' per token.
    value, low, high: the metric, and the bounds of its interval.
    count: number of questions or texts.
    tool_use: percentage of the questions with a call that returned a result, by tool.
    failed_calls: percentage of the questions with a call that returned none.
    with_call, without_call: accuracy on the questions with and without a call that returned a
      result; None if there are none.
    called: percentage of the questions with a call, whether or not it returned a result.
    when_called, when_not_called: accuracy on the questions with and without such a call.
  """

  task: str
  group: str
  arm: str
  metric: str
  value: float
  low: float
  high: float
  count: int
  tool_use: dict[str, float] = dataclasses.field(default_factory=dict)
  failed_calls: float = 0.0
  with_call: float | None = None
  without_call: float | None = None
  called: float = 0.0
  when_called: float | None = None
  when_not_called: float | None = None

  @property
  def is_degenerate(self) -> bool:
    """Whether the examples are too few for an interval."""
    return is_degenerate(self.low, self.high, self.count)


@dataclass(frozen=True)
class Difference:
  """Accuracy of one arm minus that of another, on the same questions.

  Attributes:
    task, group: what was evaluated; group is '' for the whole task.
    first, second: the arms.
    value, low, high: second minus first in percentage points, and the bounds of the 95% interval.
    count: number of questions.
  """

  task: str
  group: str
  first: str
  second: str
  value: float
  low: float
  high: float
  count: int

  @property
  def is_degenerate(self) -> bool:
    """Whether the questions are too few for an interval."""
    return is_degenerate(self.low, self.high, self.count)


def is_degenerate(low: float, high: float, count: int) -> bool:
  """Returns whether an interval is a point because all of a few examples are alike."""
  return low == high and count < _FEW


def score_predictions(task: QuestionTask, predictions: Sequence[Prediction],
                      config: EvaluationConfig) -> list[dict[str, Any]]:
  """Returns the predictions as JSON, with the part that was compared and whether it is correct."""
  records = []
  for prediction in predictions:
    match = task.matcher.match(prediction.prediction, prediction.answers, config)
    records.append({**dataclasses.asdict(prediction), 'extracted': match.extracted,
                    'correct': match.correct})
  return records


def aggregate_scores(task: Task, arm: str, records: Sequence[dict[str, Any]],
                     config: EvaluationConfig) -> list[Score]:
  """Returns the score of the whole task and, where it has several groups, of each group."""
  groups = {'': records} | _by_group(records)
  aggregate = _perplexity if isinstance(task, PerplexityTask) else _accuracy
  return [aggregate(task.name, group, arm, members, config)
          for group, members in groups.items()]


def _by_group(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
  groups: dict[str, list] = {}
  for record in records:
    groups.setdefault(record['group'], []).append(record)
  return dict(sorted(groups.items())) if len(groups) > 1 else {}


def _accuracy(task: str, group: str, arm: str, records: Sequence[dict[str, Any]],
              config: EvaluationConfig) -> Score:
  count, num_correct = len(records), sum(record['correct'] for record in records)
  low, high = confidence_intervals.wilson(num_correct, count)
  tool_counts: Counter[str] = Counter()
  num_failed = 0
  with_call: list[bool] = []
  without_call: list[bool] = []
  when_called: list[bool] = []
  when_not_called: list[bool] = []
  for record in records:
    tools = {call['tool'] for call in record['calls'] if call['result'] is not None}
    tool_counts.update(tools)
    num_failed += any(call['result'] is None for call in record['calls'])
    (with_call if tools else without_call).append(record['correct'])
    (when_called if record['calls'] else when_not_called).append(record['correct'])
  return Score(
      task, group, arm, ACCURACY, 100 * num_correct / count, 100 * low, 100 * high, count,
      tool_use={tool: 100 * n / count for tool, n in sorted(tool_counts.items())},
      failed_calls=100 * num_failed / count,
      with_call=_percent(with_call), without_call=_percent(without_call),
      called=100 * len(when_called) / count, when_called=_percent(when_called),
      when_not_called=_percent(when_not_called))


def _percent(correct: Sequence[bool]) -> float | None:
  return 100 * sum(correct) / len(correct) if correct else None


def _perplexity(task: str, group: str, arm: str, records: Sequence[dict[str, Any]],
                config: EvaluationConfig) -> Score:
  logprobs, num_tokens = ([record[key] for record in records] for key in ('logprob', 'tokens'))
  low, high = confidence_intervals.bootstrap_perplexity(
      logprobs, num_tokens, samples=config.bootstrap_samples, seed=config.seed)
  return Score(task, group, arm, PERPLEXITY, perplexity(logprobs, num_tokens), low, high,
               len(records))


def perplexity(logprobs: Sequence[float], num_tokens: Sequence[int]) -> float:
  """Returns exp(-mean log-probability of a token).

  Args:
    logprobs: sum of the natural log-probabilities of each text's tokens.
    num_tokens: number of tokens of each text.
  """
  return math.exp(-math.fsum(logprobs) / max(sum(num_tokens), 1))


def paired_differences(task: Task, by_arm: Mapping[str, Sequence[dict[str, Any]]],
                config: EvaluationConfig) -> list[Difference]:
  """Returns the accuracy of Toolformer minus that of each other arm, on their common questions."""
  toolformer = by_arm.get('toolformer')
  if toolformer is None or isinstance(task, PerplexityTask):
    return []
  differences = []
  for arm, records in by_arm.items():
    if arm != 'toolformer':
      by_id = {record['id']: record for record in records}
      pairs = [(by_id[record['id']], record) for record in toolformer if record['id'] in by_id]
      groups = {'': pairs} | {group: [pair for pair in pairs if pair[1]['group'] == group]
                              for group in _by_group([second for _, second in pairs])}
      differences += [_difference(task.name, group, arm, members, config)
                      for group, members in groups.items() if members]
  return differences


def _difference(task: str, group: str, arm: str, pairs: Sequence[tuple[dict, dict]],
                config: EvaluationConfig) -> Difference:
  first, second = ([pair[side]['correct'] for pair in pairs] for side in (0, 1))
  low, high = confidence_intervals.bootstrap_accuracy_difference(
      first, second, samples=config.bootstrap_samples, seed=config.seed)
  return Difference(task, group, arm, 'toolformer', 100 * (sum(second) - sum(first)) / len(pairs),
                    100 * low, 100 * high, len(pairs))


# The outcomes of word problems with a calculator.
CORRECT, NO_CALL, NO_RESULT, WRONG_ARGUMENT, IGNORED, EXTRACTION = OUTCOMES = (
    'correct', 'no call', 'call without a result', 'wrong argument', 'correct result, not used',
    'correct number, not the one that is extracted')


def error_breakdown(records: Sequence[dict[str, Any]], config: EvaluationConfig) -> dict[str, int]:
  """Returns how many of the scored predictions have each of `OUTCOMES`."""
  counts = Counter(outcome_of(record, config) for record in records)
  return {outcome: counts[outcome] for outcome in OUTCOMES}


def outcome_of(record: dict[str, Any], config: EvaluationConfig) -> str:
  """Returns the one of `OUTCOMES` that a scored prediction has."""
  if record['correct']:
    return CORRECT
  results = [call['result'] for call in record['calls'] if call['result'] is not None]
  if not results:
    return NO_RESULT if record['calls'] else NO_CALL
  answers = [number.value for number in map(first_number, record['answers']) if number]
  tolerance = Fraction(str(config.number_tolerance))
  def has_answer(text: str) -> bool:
    return any(abs(number.value - answer) <= tolerance
               for number in find_numbers(text) for answer in answers)
  if has_answer(record['prediction']):
    return EXTRACTION
  return IGNORED if any(map(has_answer, results)) else WRONG_ARGUMENT
