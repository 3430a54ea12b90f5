"""Many clients at the same time, tools in trouble, clients that leave: nothing is lost or mixed up.
"""

import importlib
import pathlib

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def serving_load(monkeypatch):
  """The benchmark of many requests at once."""
  monkeypatch.syspath_prepend(BENCHMARKS)
  return importlib.import_module('serving_load')


@pytest.mark.parametrize(('count', 'slots', 'rounds'), [
    (60, 4, 2), pytest.param(1000, 16, 4, marks=pytest.mark.long)])
def test_nothing_is_lost_or_mixed_up(serving_load, taught, count, slots, rounds):
  requests = list(serving_load.asks(count, ('ab is', 'cd is'), serving_load.letters,
                                    temperatures=(0.0, 0.9)))
  assert {ask.date for ask in requests} == {
      serving_load.GOOD, serving_load.HANG, serving_load.FAIL, serving_load.FLOOD}
  seen = list(serving_load.measure(taught, requests, slots=slots, rounds=rounds))
  for one in seen:
    assert one.wrong == []
    texts = [answer['text'] for answer in one.answers]
    assert texts.count(None) >= count // 5  # clients that have left
    assert ' [Up(ab) -> XY] XY.' in texts
  assert len(seen) == rounds
  assert seen[-1].arrays <= seen[0].arrays and seen[-1].memory - seen[0].memory < 0.05


def test_a_text_that_is_not_its_own_is_told(serving_load, taught, monkeypatch):
  requests = list(serving_load.asks(6, ('ab is', 'cd is'), serving_load.letters,
                                    temperatures=(0.0,)))
  texts_alone = serving_load.texts_alone
  monkeypatch.setattr(serving_load, 'texts_alone', lambda *arguments: dict.fromkeys(
      texts_alone(*arguments), 'another'))
  [one] = serving_load.measure(taught, requests, slots=2, rounds=1)
  stay = [ask for ask in requests if ask.leave_after is None]
  assert len(one.wrong) == len(stay) and "alone 'another'" in one.wrong[0]
