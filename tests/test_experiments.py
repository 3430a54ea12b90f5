"""What the experiments decide by themselves: which texts they take."""

import importlib.util
import pathlib
import sys

import pytest

EXPERIMENTS = pathlib.Path(__file__).parent.parent / 'experiments'


@pytest.fixture(scope='module')
def quickstart():
  spec = importlib.util.spec_from_file_location('quickstart', EXPERIMENTS / 'quickstart.py')
  module = importlib.util.module_from_spec(spec)
  sys.modules['quickstart'] = module
  spec.loader.exec_module(module)
  yield module
  del sys.modules['quickstart']


@pytest.mark.parametrize(('problem', 'hard'), [
    ('Ann has 24 rows of 15 roses. How many? She has 360 roses.', True),
    ('Ann has 1,240 roses and 230 plums. How many? She has 1,470.', True),
    ('Ann has 1240 roses and 230 die. How many? She has 1010.', True),
    ('Ann has 46.50 and buys 31. How much? She pays 1441.50.', True),
    ('Ann has 61 and 73. How many? She has 134.', False),  # such sums are guessed
    ('Ann has 24 and 15 of 360. How many? She has 360.', False),  # nothing is derived
    ('Ann has 4 rows of 15 roses. How many? She has 60 roses.', False),
    ('Ann has 24 rows. How many? She has 360 roses in rows of 15.', False),  # said too late
    ('24 times 15 are 360', True),  # no question: all of it is solution
])
def test_hard_results_are_large_and_one_operation_away(quickstart, problem, hard):
  assert quickstart.states_hard_result(problem) == hard


def test_training_mix_has_equal_shares_and_nothing_held_out(quickstart):
  many, few = [f'c{i}' for i in range(200)], [f's{i}' for i in range(5)]
  mix = quickstart.training_mix([many, few, []])
  share = quickstart.TRAINED_PER_TOOL
  assert len(mix) == 2 * share and sum(text.startswith('s') for text in mix) == share
  held_out = {*many[::quickstart.HELD_OUT_EVERY], *few[::quickstart.HELD_OUT_EVERY]}
  assert not held_out & set(mix) and {*few} - held_out <= set(mix)
