"""The look-ahead guard: calls must not copy what the text says only after them."""

import dataclasses

import pytest

from toolformer_jax.annotation.execute import LOOK_AHEAD, looks_ahead, start_calls
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.records import Candidate, Document
from toolformer_jax.tools.calculator import Calculator
from toolformer_jax.tools.executor import Executor
from toolformer_jax.tools.function import tool

TEXT = 'She has 48 eggs and 1,200 hens, which lay 375 eggs for $12.50 and 48 more.'


def candidate(tokenizer, before, argument):
  position = len(tokenizer.encode(before))
  assert tokenizer.decode(tokenizer.encode(TEXT)[:position]) == before
  return Candidate('d', 'Calculator', argument, position, 0.1)


@pytest.mark.parametrize(('before', 'argument', 'ahead'), [
    ('She has 48 eggs and', '48 * 2', False),
    ('She has 48 eggs and', '1200 * 2', True),  # however it is written
    ('She has 48 eggs and', '1,200 * 2', True),
    ('She has 48 eggs and 1,200 hens, which lay', '1200 - 48', False),
    ('She has 48 eggs and 1,200 hens, which lay 3', '375 + 0', True),  # in the middle of it
    ('She has 48 eggs and 1,200 hens, which lay 3', '75 + 3', False),  # the text has no such number
    ('She has 48 eggs and 1,200 hens, which lay', '12.5 * 2', True),
    ('She has', '48 + 1', True),
    ('She has 48 eggs and', '7 * 7', False),
])
def test_numbers_from_the_text_after_the_call_are_noticed(tokenizer, before, argument, ahead):
  assert looks_ahead(candidate(tokenizer, before, argument), Document('d', TEXT),
                     tokenizer, numbers=True) == ahead


@pytest.mark.parametrize(('before', 'argument', 'ahead'), [
    ('She has 48 eggs and', 'which lay', True),
    ('She has 48 eggs and', '"Which lay"', True),
    ('She has 48 eggs and 1,200 hens, which', 'which lay', True),  # only half of it is stated
    ('She has 48 eggs and 1,200 hens, which lay', 'which lay', False),
    ('She has 48 eggs and', 'she has', False),
    ('She has 48 eggs and', 'a rooster', False),
    ('She has', '', False),
    ('She has 48 eggs and', '1200 * 2', False),  # a number in it is no copy of the text
])
def test_text_from_after_the_call_is_noticed(tokenizer, before, argument, ahead):
  assert looks_ahead(candidate(tokenizer, before, argument), Document('d', TEXT),
                     tokenizer, numbers=False) == ahead


def test_translations_are_always_guarded(tokenizer):
  calls = [dataclasses.replace(candidate(tokenizer, 'She has 48 eggs and', argument), tool='MT')
           for argument in ('which lay', 'eggs')]
  with Executor([tool(str.upper, name='MT')], syntax=DEFAULT_SYNTAX) as executor:
    executed, _ = start_calls(calls, [Document('d', TEXT)], executor=executor, tokenizer=tokenizer,
                              look_ahead_guard=False)()
  assert [(call.result, call.failure) for call in executed] == [(None, LOOK_AHEAD), ('EGGS', None)]


@pytest.mark.parametrize('guard', [True, False])
def test_guarded_calls_are_not_run_and_are_counted(tokenizer, guard):
  calls = [candidate(tokenizer, 'She has 48 eggs and', argument)
           for argument in ('48 * 2', '375 * 2', '1 / 0')]
  with Executor([Calculator()], syntax=DEFAULT_SYNTAX) as executor:
    finish = start_calls(calls, [Document('d', TEXT)], executor=executor, tokenizer=tokenizer,
                         look_ahead_guard=guard)
    executed, counts = finish()
  assert [call.argument for call in executed] == [call.argument for call in calls]
  assert [call.result for call in executed] == ['96', None if guard else '750', None]
  assert executed[1].failure == (LOOK_AHEAD if guard else None)
  assert executed[2].failure is not None
  assert counts['candidates'] == 3 and counts['executed'] == (1 if guard else 2)
