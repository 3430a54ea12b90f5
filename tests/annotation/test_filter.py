"""The filter's losses, by the paper's formula."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from toolformer_jax.annotation.filter import WEIGHTS, losses_no_call, score_calls, weighted_loss
from toolformer_jax.calls import DEFAULT_SYNTAX, Call, insert_calls
from toolformer_jax.data.records import Document, ExecutedCall, ScoredCall, from_json, to_json
from toolformer_jax.inference.batching import TOKENS_NEEDED
from toolformer_jax.inference.scoring import ScoreRequest, score

TEXT = 'There are 48 and 36, which makes 84 in all.'


def test_weights_are_the_papers():
  raw = np.maximum(0, 1 - 0.2 * np.arange(50))
  np.testing.assert_allclose(WEIGHTS, (raw / raw.sum())[:5])
  assert WEIGHTS[0] == pytest.approx(1 / 3) and WEIGHTS.sum() == pytest.approx(1)


def test_only_five_tokens_count_and_the_end_is_not_renormalised():
  ones = -np.ones(9)
  assert weighted_loss(ones) == pytest.approx(1)
  assert weighted_loss(ones[:2]) == pytest.approx(1 / 3 + 4 / 15)
  changed = ones.copy()
  changed[5:] = -100
  assert weighted_loss(changed) == weighted_loss(ones)


def call(position, argument='48 + 36', result='84', failure=None):
  return ExecutedCall('d', 'Calculator', argument, position, 0.1, result, failure)


def test_losses_are_those_of_the_whole_text_after_a_prefix(make_model):
  model = make_model(max_positions=512)
  ids = tuple(model.tokenizer.encode(TEXT))
  calls = [call(20), call(len(ids) - 2), call(0, '1 / 3', '0.33')]
  scored, counts = score_calls(
      calls, [Document('d', TEXT)], model=model, syntax=DEFAULT_SYNTAX)
  assert counts['scored'] == 3
  for made in scored:
    texts = ('', f' [Calculator({made.argument}) -> ]',
             f' [Calculator({made.argument}) -> {made.result}]')
    for text, loss in zip(texts, (made.loss_no_call, made.loss_call, made.loss_result),
                          strict=True):
      opening, arrow, rest = text.partition(' ->')
      prefix = model.tokenizer.encode(opening + arrow) + model.tokenizer.encode(rest)
      everything = score(model, [ScoreRequest((), (*prefix, *ids),
                                              tuple(range(len(prefix) + len(ids))))])[0]
      from_position = everything[len(prefix) + made.position:]
      assert loss == pytest.approx(weighted_loss(from_position), abs=1e-4)
    assert made.gain == min(made.loss_no_call, made.loss_call) - made.loss_result


def test_losses_in_place_are_those_of_the_text_with_the_call_in_it(make_model):
  model = make_model(max_positions=512)
  ids = model.tokenizer.encode(TEXT)
  scored, _ = score_calls([call(20), call(len(ids) - 2)], [Document('d', TEXT)], model=model,
                          syntax=DEFAULT_SYNTAX, placement='in_place')
  for made in scored:
    for result, loss in ((None, made.loss_no_call), ('', made.loss_call),
                         (made.result, made.loss_result)):
      pieces = [] if result is None else [(made.position, Call('Calculator', '48 + 36', result))]
      tokens = insert_calls(ids, pieces, model.tokenizer.encode, DEFAULT_SYNTAX)
      logprobs, = score(model, [ScoreRequest((), tuple(tokens), tuple(range(len(tokens))))])
      after = logprobs[len(tokens) - len(ids) + made.position:]
      assert loss == pytest.approx(weighted_loss(after), abs=1e-4)


def test_in_place_is_before_the_text_where_it_begins(make_model):
  model, calls = make_model(max_positions=512), [call(0), call(9)]
  before, place = ([one.gain for one in score_calls(
      calls, [Document('d', TEXT)], model=model, syntax=DEFAULT_SYNTAX, placement=placement)[0]]
                   for placement in ('prefix', 'in_place'))
  assert place[0] == pytest.approx(before[0], abs=1e-4)
  assert place[1] != pytest.approx(before[1], abs=1e-4)


@pytest.mark.parametrize('baseline', ['min', 'no_call', 'no_result'])
def test_gains_are_measured_from_the_loss_that_is_chosen(make_model, baseline):
  model = make_model(max_positions=512)
  calls = [call(i, result=result) for i in range(2, 40, 2) for result in ('84', '9')]
  def scored(**bound):
    return score_calls(calls, [Document('d', TEXT)], model=model, syntax=DEFAULT_SYNTAX,
                       baseline=baseline, **bound)[0]
  every = scored()
  for one in every:
    without = {'no_call': one.loss_no_call, 'no_result': one.loss_call,
               'min': min(one.loss_no_call, one.loss_call)}
    assert one.gain == without[baseline] - one.loss_result
    assert from_json(ScoredCall, to_json(one)) == one
  reaching = [one.gain >= 0 for one in every]
  assert any(reaching) and not all(reaching)
  assert [one.loss_call is not None and one.gain >= 0 for one in scored(min_gain=0.0)] == reaching


@pytest.mark.parametrize('placement', ['prefix', 'in_place'])
def test_one_pass_over_a_text_gives_the_losses_without_a_call(make_model, placement):
  model, counts = make_model(max_positions=512), Counter()
  ids = tuple(model.tokenizer.encode(TEXT))
  losses = losses_no_call([(ids, position) for position in range(len(ids))], model=model,
                          scoring_tokens=1024, counts=counts)
  assert counts[TOKENS_NEEDED] == len(ids)  # the start token, and all tokens but the last
  calls = [call(position) for position in range(len(ids))]
  def scored(calls, reuse):
    return score_calls(calls, [Document('d', TEXT)], model=model, syntax=DEFAULT_SYNTAX,
                       placement=placement, reuse_no_call=reuse)
  every, needed = scored(calls, True)
  known = [dataclasses.replace(one, loss_no_call=loss)
           for one, loss in zip(calls, losses, strict=True)]
  reused, fewer = scored(known, True)
  assert needed[TOKENS_NEEDED] - fewer[TOKENS_NEEDED] == len(ids)
  for one, other in zip(every, reused, strict=True):
    assert one.gain == pytest.approx(other.gain, abs=1e-5)
  wrong = [dataclasses.replace(one, loss_no_call=-9.0) for one in calls]
  assert all(one.loss_no_call == -9.0 for one in scored(wrong, True)[0])
  assert [one.loss_no_call for one in scored(wrong, False)[0]] == [one.loss_no_call
                                                                   for one in every]


def test_calls_without_a_result_are_not_scored(make_model):
  scored, _ = score_calls([call(3, result=None, failure='no')], [Document('d', TEXT)],
                          model=make_model(), syntax=DEFAULT_SYNTAX)
  assert scored == []


def test_skipping_a_loss_changes_no_call_that_reaches_the_threshold(make_model):
  model, least = make_model(max_positions=512), 0.0
  positions = range(2, len(model.tokenizer.encode(TEXT)) - 2)
  calls = [call(i, result=result) for i in positions for result in ('84', '9')]
  every, lazy = (
      score_calls(calls, [Document('d', TEXT)], model=model, syntax=DEFAULT_SYNTAX, **bound)[0]
      for bound in ({}, {'min_gain': least}))
  skipped = [made.loss_call is None for made in lazy]
  assert any(skipped) and not all(skipped)
  for one, other in zip(every, lazy, strict=True):
    if other.loss_call is None:
      assert one.gain <= other.gain + 1e-5 and other.gain < least
    else:
      assert one.gain == pytest.approx(other.gain, abs=1e-5)
