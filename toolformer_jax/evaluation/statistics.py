"""Confidence intervals of 95%, over the questions that were asked."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.stats

_QUANTILES = (0.025, 0.975)


def wilson(successes: int, count: int) -> tuple[float, float]:
  """Returns the interval of a share by Wilson (1927); (0, 1) if nothing was counted."""
  if not count:
    return 0.0, 1.0
  interval = scipy.stats.binomtest(successes, count).proportion_ci(method='wilson')
  return float(interval.low), float(interval.high)


def paired_difference(first: Sequence[bool], second: Sequence[bool], *, samples: int,
                      seed: int) -> tuple[float, float]:
  """Returns the interval of mean(second) - mean(first) by bootstrap over the questions.

  Args:
    first, second: whether each question was answered right, by two models.
    samples, seed: of the bootstrap.
  """
  changes = np.asarray(second, int) - np.asarray(first, int)
  shares = np.array([(changes == change).mean() for change in (-1, 0, 1)])
  counts_S3 = np.random.default_rng(seed).multinomial(len(changes), shares, size=samples)
  return _interval((counts_S3[:, 2] - counts_S3[:, 0]) / len(changes))


def perplexity(logprobs: Sequence[float], tokens: Sequence[int]) -> float:
  """Returns exp(-mean log-probability of a token), of texts with these sums and sizes."""
  return math.exp(-math.fsum(logprobs) / max(sum(tokens), 1))


def perplexity_interval(logprobs: Sequence[float], tokens: Sequence[int], *, samples: int,
                        seed: int) -> tuple[float, float]:
  """Returns the interval of a perplexity by bootstrap over the texts."""
  random, count = np.random.default_rng(seed), len(tokens)
  weights_SN = random.multinomial(count, np.full(count, 1 / count), size=samples)
  return _interval(np.exp(-(weights_SN @ np.asarray(logprobs)) / (weights_SN @ np.asarray(tokens))))


def _interval(values: np.ndarray) -> tuple[float, float]:
  low, high = np.quantile(values, _QUANTILES)
  return float(low), float(high)
