"""Metrics of classification besides accuracy: means over labels, and which labels are confused.

They are those of scikit-learn, which is an extra of this package.
"""

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.confidence_intervals import quantiles
from toolformer_jax.evaluation.task import ClassificationTask, Task


@dataclass(frozen=True)
class Confusion:
  """How many texts with a label were given another one."""

  label: str
  predicted: str
  count: int


@dataclass(frozen=True)
class LabelMetrics:
  """Metrics of one arm on a task of classification.

  Attributes:
    precision, recall, f1: in percent, means over the labels that occur (macro).
    low, high: bounds of the 95% interval of `f1`, by bootstrap over texts.
    confusions: the mistakes, the most frequent first.
  """

  precision: float
  recall: float
  f1: float
  low: float
  high: float
  confusions: tuple[Confusion, ...]


def check_can_classify(tasks: Sequence[Task]) -> None:
  """Raises UserError if a task of classification is among `tasks`, and scikit-learn is missing."""
  for task in tasks:
    if isinstance(task, ClassificationTask) and not importlib.util.find_spec('sklearn'):
      raise UserError(f'the metrics of {task.title} need the extra "tasks": pip install '
                      '"toolformer_jax[tasks]"')


def label_metrics(records: Sequence[Mapping[str, Any]], *, samples: int, seed: int) -> LabelMetrics:
  """Returns the metrics of scored predictions.

  Args:
    records: with the compared part, `extracted`, and the `answers`.
    samples, seed: of the bootstrap.
  """
  from sklearn.metrics import f1_score, precision_recall_fscore_support
  true = [record['answers'][0] for record in records]
  # A text that was too long has no prediction: it is wrong.
  predicted = [record['extracted'] for record in records]
  labels = sorted({*true, *filter(None, predicted)})
  def macro_f1(weights: np.ndarray) -> float:
    # A label that is not among the resampled texts is not in the mean.
    return f1_score(true, predicted, labels=labels, average='macro', sample_weight=weights,
                    zero_division=np.nan)
  precision, recall, f1, _ = precision_recall_fscore_support(
      true, predicted, labels=labels, average='macro', zero_division=0.0)
  rng, count = np.random.default_rng(seed), len(records)
  low, high = quantiles(np.array([macro_f1(rng.multinomial(count, np.full(count, 1 / count)))
                                  for _ in range(samples)]))
  mistakes = Counter((a, b) for a, b in zip(true, predicted, strict=True) if a != b)
  return LabelMetrics(100 * precision, 100 * recall, 100 * f1, 100 * low, 100 * high, tuple(
      Confusion(label, other, number) for (label, other), number in mistakes.most_common()))
