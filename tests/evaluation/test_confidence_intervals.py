"""Intervals hold what they promise, and agree with scipy's."""

import numpy as np
import pytest
from scipy import stats

from toolformer_jax.evaluation import confidence_intervals as intervals
from toolformer_jax.evaluation.scores import PERPLEXITY, Difference, Score, perplexity
from toolformer_jax.evaluation.tables import format_score
from toolformer_jax.experiments.comparison import finding


@pytest.mark.parametrize(('successes', 'count'), [(0, 1), (15, 400), (500, 1000), (7, 7)])
def test_wilson_agrees_with_scipy(successes, count):
  expected = stats.binomtest(successes, count).proportion_ci(method='wilson')
  assert intervals.wilson(successes, count) == pytest.approx(tuple(expected), abs=1e-6)


def test_nothing_counted_says_nothing():
  assert intervals.wilson(0, 0) == (0.0, 1.0)


def test_a_paired_difference_agrees_with_scipys_bootstrap():
  random = np.random.default_rng(0)
  first, second = random.random(400) < 0.2, random.random(400) < 0.35
  ours = intervals.bootstrap_accuracy_difference(first, second, samples=20_000, seed=1)
  theirs = stats.bootstrap((second.astype(float) - first,), np.mean, n_resamples=20_000,
                           method='percentile', rng=2).confidence_interval
  assert ours == pytest.approx(tuple(theirs), abs=0.006)
  assert ours == intervals.bootstrap_accuracy_difference(first, second, samples=20_000, seed=1)
  assert intervals.bootstrap_accuracy_difference(first, first, samples=100, seed=0) == (0.0, 0.0)


def test_a_perplexity_is_of_a_token_and_its_interval_around_it():
  random = np.random.default_rng(0)
  tokens = random.integers(5, 200, 300)
  logprobs = -tokens * random.normal(3.0, 0.5, 300)
  value = perplexity(logprobs, tokens)
  assert value == pytest.approx(np.exp(-logprobs.sum() / tokens.sum()))
  low, high = intervals.bootstrap_perplexity(logprobs, tokens, samples=2000, seed=0)
  def statistic(logprobs, tokens, axis=-1):
    return np.exp(-logprobs.sum(axis) / tokens.sum(axis))
  theirs = stats.bootstrap((logprobs, tokens), statistic, paired=True, n_resamples=2000,
                           method='percentile', rng=1).confidence_interval
  assert low < value < high
  assert (low, high) == pytest.approx(tuple(theirs), rel=0.01)


@pytest.mark.parametrize(('low', 'high', 'count', 'shown'), [
    (0.0, 0.0, 3, '+0.0 [too few questions]'), (100.0, 100.0, 1, '+100.0 [too few questions]'),
    (0.0, 0.0, 300, '+0.0 [+0.0, +0.0]'), (-5.0, 5.0, 20, '+0.0 [-5.0, +5.0]')])
def test_an_interval_that_is_a_point_says_why(low, high, count, shown):
  difference = Difference('svamp', '', 'base', 'toolformer', (low + high) / 2, low, high, count)
  assert format_score(difference) == shown


def test_a_difference_of_few_questions_is_no_finding():
  one = Difference('svamp', '', 'base', 'toolformer', 100.0, 100.0, 100.0, 1)
  assert finding(one, 23.1) == 'undecided: too few questions'


def test_a_perplexity_of_one_text_has_no_interval():
  assert format_score(Score('corpus', '', 'base', PERPLEXITY, 9.5, 9.5, 9.5, 1)) == (
      '9.50 [too few texts]')
