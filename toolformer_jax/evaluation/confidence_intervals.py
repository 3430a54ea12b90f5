"""95% confidence intervals of scores, over the examples of a benchmark."""

from collections.abc import Sequence

import numpy as np

_QUANTILES = (0.025, 0.975)


def wilson(num_correct: int, count: int) -> tuple[float, float]:
  """Returns Wilson's (1927) interval of an accuracy, 0 to 1; (0, 1) without any example."""
  if not count:
    return 0.0, 1.0
  from scipy.stats import binomtest  # slow to import
  interval = binomtest(num_correct, count).proportion_ci(method='wilson')
  return float(interval.low), float(interval.high)


def bootstrap_accuracy_difference(first: Sequence[bool], second: Sequence[bool], *, samples: int,
                                  seed: int) -> tuple[float, float]:
  """Returns the paired bootstrap interval of mean(second) - mean(first).

  Args:
    first, second: whether each example was answered correctly, by two models.
    samples, seed: of the bootstrap.
  """
  changes = np.asarray(second, int) - np.asarray(first, int)
  # An example contributes -1, 0 or 1: resampling examples is drawing how many are of each kind.
  shares = np.array([(changes == change).mean() for change in (-1, 0, 1)])
  counts_S3 = np.random.default_rng(seed).multinomial(len(changes), shares, size=samples)
  return quantiles((counts_S3[:, 2] - counts_S3[:, 0]) / len(changes))


def bootstrap_perplexity(logprobs: Sequence[float], num_tokens: Sequence[int], *, samples: int,
                         seed: int) -> tuple[float, float]:
  """Returns the bootstrap interval of a perplexity; texts are resampled, not tokens.

  Args:
    logprobs: sum of the log-probabilities of each text's tokens.
    num_tokens: number of tokens of each text.
    samples, seed: of the bootstrap.
  """
  random, count = np.random.default_rng(seed), len(num_tokens)
  weights_SN = random.multinomial(count, np.full(count, 1 / count), size=samples)
  mean_S = (weights_SN @ np.asarray(logprobs)) / np.maximum(weights_SN @ np.asarray(num_tokens), 1)
  return quantiles(np.exp(-mean_S))


def quantiles(values: np.ndarray) -> tuple[float, float]:
  """Returns the bounds of the middle 95% of bootstrapped values."""
  low, high = np.quantile(values, _QUANTILES)
  return float(low), float(high)
