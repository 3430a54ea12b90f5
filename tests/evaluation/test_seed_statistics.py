"""Intervals over seeds and questions, against formulas and simulated experiments."""

import numpy as np
import pytest

from toolformer_jax.evaluation.confidence_intervals import bootstrap_accuracy_difference
from toolformer_jax.evaluation.seed_statistics import (
  SeededRecords,
  seeded_difference,
  seeded_score,
)

HOW = {'samples': 2000, 'seed': 0}


def records(correct_SN, trained='here'):
  models = [f'{trained}{i}' for i in range(len(correct_SN))]
  return SeededRecords.of([[{'id': f'q{i}', 'correct': bool(one)} for i, one in enumerate(row)]
                           for row in correct_SN], models)


def test_with_one_seed_the_interval_is_that_of_the_questions():
  correct = np.random.default_rng(0).random(500) < 0.3
  found = seeded_score(records([correct]), **HOW)
  error = 100 * np.sqrt(correct.mean() * (1 - correct.mean()) / 500)
  assert found.value == pytest.approx(100 * correct.mean())
  assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
  assert (found.seeds, found.count) == (1, 500)


def test_with_one_seed_a_difference_is_that_of_the_paired_bootstrap():
  random = np.random.default_rng(1)
  first, second = random.random((2, 400)) < [[0.3], [0.4]]
  found = seeded_difference(records([first]), records([second]), **HOW)
  low, high = bootstrap_accuracy_difference(first, second, samples=20_000, seed=0)
  assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), abs=0.6)


@pytest.mark.parametrize('seeds', [3, 8])
def test_seeds_that_differ_widen_the_interval(seeds):
  """The spread of means over new seeds and new questions is what the bootstrap says, on average."""
  def draw(random):
    skill_S1 = 0.4 + 0.08 * random.standard_normal((seeds, 1))
    return random.random((seeds, 300)) < skill_S1
  means = [100 * draw(np.random.default_rng(i)).mean() for i in range(2000)]
  found = [seeded_score(records(draw(np.random.default_rng(i))), samples=300, seed=i)
           for i in range(60)]
  # Normal quantiles: half of the interval is 1.96 standard deviations.
  spread = np.sqrt(np.mean([((one.high - one.low) / 3.92) ** 2 for one in found]))
  assert spread == pytest.approx(np.std(means), rel=0.15)


def test_two_arms_of_the_same_models_share_the_resampled_models():
  """Seeds differ much, and in both arms alike: only their difference counts."""
  random = np.random.default_rng(3)
  answered_SN = random.random((3, 400)) < [[0.1], [0.4], [0.7]]
  changed_SN = answered_SN | (random.random((3, 400)) < 0.05)
  same = seeded_difference(records(answered_SN), records(answered_SN), **HOW)
  assert (same.low, same.value, same.high) == (0, 0, 0)
  paired = seeded_difference(records(answered_SN), records(changed_SN), **HOW)
  other = seeded_difference(records(answered_SN), records(changed_SN, 'there'), **HOW)
  assert 0 < paired.low < paired.value < paired.high and other.low < 0
  assert paired.value == other.value


def test_models_that_one_side_lacks_are_left_out():
  """A cell that failed does not undo the pairing of the others."""
  random = np.random.default_rng(5)
  answered_SN = random.random((3, 200)) < [[0.1], [0.4], [0.7]]
  without_second = SeededRecords.of(
      [[{'id': f'q{i}', 'correct': bool(one)} for i, one in enumerate(answered_SN[row])]
       for row in (2, 0)], ['here2', 'here0'])
  found = seeded_difference(records(answered_SN), without_second, **HOW)
  assert (found.low, found.value, found.high, found.seeds) == (0, 0, 0, 2)


def test_chance_in_single_answers_widens_an_interval_too_much_but_by_a_bound():
  """Where nothing but single answers differs, three variances are added in place of one."""
  def draw(random):
    return random.random((8, 300)) < 0.3
  means = [100 * draw(np.random.default_rng(i)).mean() for i in range(2000)]
  found = [seeded_score(records(draw(np.random.default_rng(i))), samples=300, seed=i)
           for i in range(60)]
  spread = np.sqrt(np.mean([((one.high - one.low) / 3.92) ** 2 for one in found]))
  assert 1.4 < spread / np.std(means) < 1.9


def test_what_is_detectable_is_detected_in_four_of_five_experiments():
  random = np.random.default_rng(2)
  def draw(rate, trained='here'):
    return records(random.random((3, 400)) < rate, trained)
  effect = seeded_difference(draw(0.3), draw(0.3, 'there'), **HOW).detectable
  found = [seeded_difference(draw(0.3), draw(0.3 + effect / 100, 'there'), samples=300, seed=i)
           for i in range(200)]
  assert 0.7 < np.mean([one.low > 0 for one in found]) < 0.93


def test_a_difference_counts_common_questions_alone():
  first = records([[1, 0, 1, 1]])
  second = SeededRecords.of([[{'id': f'q{i}', 'correct': i != 2} for i in (3, 2, 1)]], ['other'])
  found = seeded_difference(first, second, **HOW)
  assert found.count == 3 and found.value == pytest.approx(0)


def test_perplexities_are_averaged_over_tokens_and_then_over_seeds():
  texts = [[{'id': 'a', 'logprob': -2.0, 'tokens': 1}, {'id': 'b', 'logprob': -4.0, 'tokens': 3}],
           [{'id': 'b', 'logprob': -2.0, 'tokens': 3}, {'id': 'a', 'logprob': -2.0, 'tokens': 1}]]
  assert seeded_score(SeededRecords.of(texts, ['a', 'b']), **HOW).value == pytest.approx(
      (np.exp(6 / 4) + np.exp(4 / 4)) / 2)


def test_models_must_have_seen_the_same_questions():
  with pytest.raises(ValueError, match='the same examples'):
    SeededRecords.of([[{'id': 'a', 'correct': True}], [{'id': 'b', 'correct': True}]], ['a', 'b'])


def test_bounds_of_a_percentage_are_percentages():
  low = seeded_score(records([[0] * 39 + [1], [0] * 40]), **HOW)
  high = seeded_score(records([[1] * 39 + [0], [1] * 40]), **HOW)
  assert low.low == 0 < low.high and high.low < 100 == high.high
