"""Metrics of several models that differ by a seed: means and intervals over seeds and examples.

A model that is trained again with another seed answers other questions, so that an interval over
the questions of one model is too narrow. Here both are resampled: models, and examples, the same
examples for all models, as each of them was asked the same. Arms of the same models, such as one
with tools and one without, share the resampled models too.

These intervals are never too narrow on average, and too wide where models answer single questions
differently by chance: that part of the variance is counted up to three times (Owen 2007, "The
pigeonhole bootstrap").
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from toolformer_jax.evaluation.scores import ACCURACY, PERPLEXITY

_QUANTILES = (0.025, 0.975)
# An effect of this many standard errors is found in 80% of the experiments, by a two-sided test at
# 5%: 1.96 + 0.84.
_DETECTED = 2.8


@dataclass(frozen=True)
class SeededRecords:
  """The records of one arm on one task, of models that differ by a seed.

  Attributes:
    metric: 'accuracy' or 'perplexity'.
    values_SN: for each model and example, whether the answer is correct, or the sum of the
      log-probabilities of the text's tokens.
    weights_N: for each example 1, or its number of tokens.
    ids: of the examples.
    models: for each model a name of the training that makes it differ from the others.
  """

  metric: str
  values_SN: np.ndarray
  weights_N: np.ndarray
  ids: tuple[str, ...]
  models: tuple[str, ...]

  @classmethod
  def of(cls, records: Sequence[Sequence[dict[str, Any]]], models: Sequence[str]) -> Self:
    """Returns the records of `models`, which must be of the same examples in any order."""
    first = sorted(records[0], key=lambda record: record['id'])
    ids = tuple(record['id'] for record in first)
    is_accuracy = 'correct' in first[0]
    name = 'correct' if is_accuracy else 'logprob'
    values = []
    for model in records:
      by_id = {record['id']: record[name] for record in model}
      if by_id.keys() != {*ids}:
        raise ValueError('the models were not evaluated on the same examples')
      values.append([by_id[one] for one in ids])
    weights = np.array([1 if is_accuracy else record['tokens'] for record in first], np.float64)
    return cls(ACCURACY if is_accuracy else PERPLEXITY, np.array(values, np.float64), weights, ids,
               tuple(models))

  def metric_of(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the metric from sums over examples: of values, and of weights."""
    ratio = values / np.maximum(weights, 1)
    return 100 * ratio if self.metric == ACCURACY else np.exp(-ratio)


@dataclass(frozen=True)
class SeededScore:
  """A mean over models that differ by a seed, or a difference of two such means.

  Attributes:
    value, low, high: the mean, and the bounds of its 95% interval.
    seeds, count: numbers of models and of examples.
    detectable: the smallest difference that would be found in 80% of such experiments.
  """

  value: float
  low: float
  high: float
  seeds: int
  count: int
  detectable: float


def seeded_score(records: SeededRecords, *, samples: int, seed: int) -> SeededScore:
  """Returns the mean over models of the metric, by a bootstrap over models and examples.

  Args:
    records: the records.
    samples, seed: of the bootstrap.
  """
  found = _bootstrap([records], lambda means: means[0], samples, seed)
  # Scaled deviations may leave the range of a percentage, or of a perplexity.
  least, most = (0.0, 100.0) if records.metric == ACCURACY else (1.0, math.inf)
  return dataclasses.replace(found, low=max(least, found.low), high=min(most, found.high))


def seeded_difference(first: SeededRecords, second: SeededRecords, *, samples: int, seed: int
                      ) -> SeededScore:
  """Returns the metric of `second` minus that of `first`, on their common examples.

  The examples of both are resampled together. If they have models in common, these alone are
  compared, and resampled together too. Models that were trained differently are resampled each by
  themselves: they have nothing in common through an equal seed.
  """
  ids = sorted({*first.ids} & {*second.ids})
  if not ids:
    raise ValueError('there is no common example')
  shared = [model for model in dict.fromkeys(first.models) if model in second.models]
  groups = [_only(one, ids, shared or one.models) for one in (first, second)]
  return _bootstrap(groups, lambda means: means[1] - means[0], samples, seed)


def _only(records: SeededRecords, ids: Sequence[str], models: Sequence[str]) -> SeededRecords:
  rows, columns = (list(map(known.index, wanted)) for known, wanted in
                   ((records.models, models), (records.ids, ids)))
  return dataclasses.replace(records, values_SN=records.values_SN[rows][:, columns],
                             weights_N=records.weights_N[columns], ids=tuple(ids),
                             models=tuple(models))


def _bootstrap(groups: Sequence[SeededRecords], statistic: Callable[[list], np.ndarray],
               samples: int, seed: int) -> SeededScore:
  random, N = np.random.default_rng(seed), len(groups[0].ids)
  counts_BN = random.multinomial(N, np.full(N, 1 / N), size=samples)
  drawn_BS = {models: random.integers(len(models), size=(samples, len(models)))
              for models in dict.fromkeys(group.models for group in groups)}
  found = statistic([_means_of_resampled(group, counts_BN, drawn_BS[group.models])
                     for group in groups])
  value = statistic([group.metric_of(group.values_SN.sum(1), group.weights_N.sum()).mean()
                     for group in groups])
  low, high = np.quantile(found, _QUANTILES)
  return SeededScore(float(value), float(low), float(high), len(groups[-1].values_SN), N,
                     float(_DETECTED * found.std()))


def _means_of_resampled(group: SeededRecords, counts_BN: np.ndarray, drawn_BS: np.ndarray
                        ) -> np.ndarray:
  """Returns the mean metric of the models that were drawn, [B], on resampled examples.

  The variance of a mean of S values drawn from S is (S - 1) / S of the unbiased estimate. With few
  seeds this matters, so that deviations from the mean are scaled up.
  """
  S = len(group.values_SN)
  metrics_BS = group.metric_of(counts_BN @ group.values_SN.T,
                               (counts_BN @ group.weights_N)[:, None])
  mean_B = metrics_BS.mean(1)
  deviation_B = np.take_along_axis(metrics_BS, drawn_BS, axis=1).mean(1) - mean_B
  return mean_B + deviation_B * np.sqrt(S / max(S - 1, 1))
