"""The paper's figures, held against what the paper itself derives from them; and findings."""

from statistics import fmean

import pytest

from toolformer_jax.evaluation.scores import Difference
from toolformer_jax.evaluation.tasks import TASKS
from toolformer_jax.experiments import paper
from toolformer_jax.experiments.comparison import finding

MEANS = {'LAMA': (18.20, 19.33, 21.10, 32.93, 18.20, 24.53),
         'Math': (7.53, 7.97, 12.03, 37.93, 6.27, 14.60),
         'QA': (25.07, 25.40, 26.07, 30.93, 25.23, 39.17)}


def of_family(family):
  return [by_arm for (task, _), by_arm in paper.SCORES.items() if task in paper.FAMILIES[family]]


@pytest.mark.parametrize('family', MEANS)
def test_the_means_of_tables_3_to_5(family):
  for arm, mean in zip(of_family(family)[0], MEANS[family], strict=True):
    assert fmean(by_arm[arm] for by_arm in of_family(family)) == pytest.approx(mean, abs=0.006)
  # Figure 4's dotted lines are GPT-3's means.
  assert paper.SCALING_GPT3[family] == pytest.approx(MEANS[family][-1], abs=0.05)


def test_table_9_is_the_mean_of_its_parts():
  for by_k in paper.DECODING_K.values():
    for row in by_k.values():
      mixed = (row.share * (row.with_call or 0) + (100 - row.share) * (row.without_call or 0)) / 100
      assert mixed == pytest.approx(row.all, abs=0.4)
  # And its last rows are Toolformer's figures of tables 3 and 5.
  assert paper.DECODING_K['lama'][10].all == paper.SCORES['lama', 'trex']['toolformer']
  assert (paper.DECODING_K['webquestions'][10].all
          == paper.SCORES['webquestions', '']['toolformer'])


def test_fewer_calls_pass_a_higher_threshold():
  for counts in paper.API_CALLS.values():
    assert list(counts) == [0.5, 1.0, 2.0]
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


def test_every_figure_belongs_to_a_task_of_ours():
  for task, group in paper.SCORES:
    assert group in ('', *dict(TASKS[task].groups))
  for task, _, group in (name.partition('/') for name in paper.TOOL_USE):
    assert group in ('', *dict(TASKS[task].groups))
  assert {*paper.STAND_INS, *paper.STAND_INS.values()} <= {*TASKS}


@pytest.mark.parametrize(('low', 'high', 'theirs', 'says'), [
    (1.0, 5.0, 11.7, 'the same direction'), (-5.0, -1.0, 11.7, 'the opposite direction'),
    (-1.0, 5.0, 11.7, 'undecided'), (-5.0, -1.0, -2.0, 'the same direction')])
def test_a_finding_needs_an_interval_without_zero(low, high, theirs, says):
  ours = Difference('lama', 'squad', 'disabled', 'toolformer', (low + high) / 2, low, high, 300)
  assert finding(ours, theirs).startswith(says)
