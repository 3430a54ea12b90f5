"""Every call has an outcome, in order and in time, whatever its tool does."""

import subprocess
import sys
import threading
import time
from concurrent import futures

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer_jax.calls import DEFAULT_SYNTAX, Call, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context, ToolError, call_one
from toolformer_jax.tools.executor import Executor, ExecutorConfig, Request
from toolformer_jax.tools.function import tool

WAIT_S = 30.0  # Far more than anything here needs.

echo = tool(lambda argument: argument, name='Echo')


def one(function, argument='x', syntax=DEFAULT_SYNTAX, **limits):
  """The outcome of one call of `function`, and the counts."""
  with Executor([tool(function, name='One')], ExecutorConfig(**limits), syntax=syntax) as executor:
    [outcome] = executor.run([Request('One', argument)])
    return outcome, executor.counts['One']


@given(st.lists(st.text()))
@settings(max_examples=30)
def test_outcomes_are_in_order_and_each_is_result_or_failure(arguments):
  with Executor([echo], ExecutorConfig(workers=3, max_result_chars=50)) as executor:
    outcomes = executor.run([Request('Echo', argument) for argument in arguments])
  for argument, outcome in zip(arguments, outcomes, strict=True):
    expected = DEFAULT_SYNTAX.clean_result(argument, 50)
    assert outcome.result == (expected or None)
    assert outcome.failure == (None if expected else 'Echo: empty result')
  assert executor.counts['Echo'].calls == len(set(arguments))  # equal calls are made once


@given(st.text('[]->() Echo\n"', min_size=1))
@settings(max_examples=50)
def test_a_result_never_opens_or_closes_a_call(text):
  outcome, _ = one(lambda argument: argument, text)
  if outcome.result is not None:
    call = Call('Echo', 'x', outcome.result)
    linear = DEFAULT_SYNTAX.linearise(call)
    assert [span.call for span in DEFAULT_SYNTAX.find(linear, {'Echo'})] == [call]


def test_the_context_reaches_the_tool():
  with Executor([tool(lambda a, context: context.date, name='Date')]) as executor:
    [outcome] = executor.run([Request('Date', '', Context(date='2023-01-30'))])
  assert outcome.result == '2023-01-30'


def test_calls_run_concurrently():
  barrier = threading.Barrier(4)
  meet = tool(lambda argument: str(barrier.wait(WAIT_S) >= 0), name='Meet')
  with Executor([meet], ExecutorConfig(workers=4)) as executor:
    outcomes = executor.run([Request('Meet', str(i)) for i in range(4)])
  assert [outcome.result for outcome in outcomes] == ['True'] * 4


def test_a_hung_call_is_abandoned_and_its_worker_replaced():
  release = threading.Event()
  hang = tool(lambda argument: str(release.wait(WAIT_S)), name='Hang')
  with Executor([hang, echo], ExecutorConfig(time_limit_s=0.1, workers=1)) as executor:
    pairs = [('Hang', ''), ('Echo', 'a'), ('Hang', ''), ('Echo', 'b')]
    running = [executor.submit(Request(*pair)) for pair in pairs]
    outcomes = [future.result(WAIT_S) for future in running]
    release.set()
    counts = executor.counts['Hang']
    assert [outcome.result for outcome in outcomes] == [None, 'a', None, 'b']
    assert outcomes[0].failure == 'Hang: time limit: no result within 0.1 seconds'
    assert all(0.1 <= outcome.seconds < WAIT_S / 2 for outcome in outcomes[::2])
    assert (counts.calls, counts.failures['time limit']) == (2, 2)
    # The late threads are gone, and one worker goes on.
    assert executor.run([Request('Echo', 'c')])[0].result == 'c'


def test_the_time_limit_counts_from_the_start_of_the_call():
  nap = tool(lambda argument: time.sleep(0.2) or 'slept', name='Nap')
  with Executor([nap], ExecutorConfig(time_limit_s=0.7, workers=1)) as executor:
    outcomes = executor.run([Request('Nap', str(i)) for i in range(4)])
  assert [outcome.result for outcome in outcomes] == ['slept'] * 4
  assert executor.counts['Nap'].seconds == pytest.approx(sum(o.seconds for o in outcomes))


class UnspeakableError(Exception):
  def __str__(self):
    raise RuntimeError


@pytest.mark.parametrize('error, failure, kind', [
  (ToolError('no page matches'), 'One: no page matches', 'no page matches'),
  (ToolError('not a date: 1/2'), 'One: not a date: 1/2', 'not a date'),
  (ToolError(), 'One: ToolError', 'ToolError'),
  (ZeroDivisionError('by zero'), 'One: ZeroDivisionError: by zero', 'ZeroDivisionError'),
  (ValueError('two\nlines'), 'One: ValueError: two lines', 'ValueError'),
  (SystemExit(3), 'One: SystemExit: 3', 'SystemExit'),
  (KeyboardInterrupt(), 'One: KeyboardInterrupt', 'KeyboardInterrupt'),
])
def test_every_exception_is_a_failure_with_its_kind(error, failure, kind):
  def fail(argument):
    raise error

  outcome, counts = one(fail)
  assert (outcome.result, outcome.failure) == (None, failure)
  assert counts.failures == {kind: 1}


class UnspeakableToolError(ToolError):
  def __str__(self):
    raise RuntimeError


class WrongMessageToolError(ToolError):
  def __str__(self):
    return 5


@pytest.mark.parametrize('kind', [UnspeakableError, UnspeakableToolError, WrongMessageToolError])
def test_an_error_whose_message_cannot_be_read_is_a_failure(kind):
  def fail(argument):
    raise kind

  class Batch(Doubling):
    def call_many(self, arguments, contexts):
      return [kind() for _ in arguments]

  assert kind.__name__ in one(fail)[0].failure
  with Executor([Batch()]) as executor:
    futures_ = executor.submit_all([Request('Double', text) for text in 'ab'])
    assert all(kind.__name__ in future.result(WAIT_S).failure for future in futures_)


def test_a_long_message_is_cut():
  def fail(argument):
    raise ValueError('x' * 10**6)

  assert len(one(fail, 'long')[0].failure) < 2100


@pytest.mark.parametrize('limit', ['soon', None, 0, -1, float('nan'), float('inf')])
def test_a_time_limit_that_is_no_number_of_seconds_is_refused(limit):
  limited = Doubling()
  limited.time_limit_s = limit
  with pytest.raises(UserError, match='the time limit of the tool Double'):
    Executor([limited])


@pytest.mark.parametrize('result, reason', [
  (None, 'TypeError: returned NoneType, not a string'),
  (35, 'TypeError: returned int, not a string'),
  (b'35', 'TypeError: returned bytes, not a string'),
  ('', 'empty result'),
  (' \n ', 'empty result'),
])
def test_no_text_is_a_failure(result, reason):
  assert one(lambda argument: result)[0].failure == f'One: {reason}'


def test_megabytes_are_cut_before_they_are_cleaned():
  lengths = []

  class Spy(CallSyntax):
    def clean_result(self, result, max_chars):
      lengths.append(len(result))
      return super().clean_result(result, max_chars)

  long = '\n' * 10**6 + 'word ' * 10**6
  outcome, _ = one(lambda argument: long, max_result_chars=12, syntax=Spy())
  assert outcome.result == 'word word'
  assert lengths[0] < 1000


def test_an_unknown_tool_is_the_callers_mistake():
  with Executor([echo]) as executor, pytest.raises(UserError, match="unknown tool 'Ecco'"):
    executor.run([Request('Ecco', '')])


def test_closing_cancels_what_waits_and_refuses_more():
  release, begun = threading.Event(), threading.Event()
  hold = tool(lambda a: begun.set() or str(release.wait(WAIT_S)), name='Hold')
  with Executor([hold], ExecutorConfig(workers=1, time_limit_s=WAIT_S)) as executor:
    running, waiting = executor.submit(Request('Hold', '')), executor.submit(Request('Hold', ''))
    assert begun.wait(WAIT_S)
  assert waiting.cancelled()
  release.set()
  assert running.result(WAIT_S).result == 'True'
  with pytest.raises(RuntimeError, match='closed'):
    executor.submit(Request('Hold', ''))


def test_a_waiting_call_can_be_cancelled():
  release, begun = threading.Event(), threading.Event()
  hold = tool(lambda a: begun.set() or str(release.wait(WAIT_S)), name='Hold')
  with Executor([hold, echo], ExecutorConfig(workers=1, time_limit_s=WAIT_S)) as executor:
    executor.submit(Request('Hold', ''))
    assert begun.wait(WAIT_S)
    assert executor.submit(Request('Echo', 'a')).cancel()
    release.set()
    assert executor.run([Request('Echo', 'b')])[0].result == 'b'
    assert executor.counts['Echo'].calls == 1


def test_a_callback_may_submit_the_next_call():
  chained: futures.Future = futures.Future()
  with Executor([echo], ExecutorConfig(workers=1)) as executor:
    first = executor.submit(Request('Echo', 'a'))
    first.add_done_callback(
      lambda done: chained.set_result(executor.submit(Request('Echo', done.result().result + 'b')))
    )
    assert chained.result(WAIT_S).result(WAIT_S).result == 'ab'


def test_closing_lets_all_threads_go():
  before = threading.active_count()
  for _ in range(20):
    one(lambda argument: argument, workers=4)
  deadline = time.monotonic() + WAIT_S
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() <= before


HANGING_PROGRAM = """
import threading
from toolformer_jax.tools.executor import Executor, ExecutorConfig, Request
from toolformer_jax.tools.function import tool
hang = tool(lambda argument: threading.Event().wait(), name='Hang')
executor = Executor([hang], ExecutorConfig(time_limit_s=0.1))
print(executor.run([Request('Hang', '')])[0].failure)
"""


def test_a_hung_call_does_not_hang_the_exit():
  command = [sys.executable, '-c', HANGING_PROGRAM]
  done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
  assert done.stdout.startswith('Hang: time limit')


class Doubling:
  """A batch tool that notes which calls were made together."""

  name, version, batch = 'Double', '1', 3

  def __init__(self):
    self.batches = []

  def __call__(self, argument, context):
    return call_one(self, argument, context)

  def call_many(self, arguments, contexts):
    self.batches.append(list(arguments))
    return [ToolError(f'no: {a}') if a == 'bad' else a * 2 for a in arguments]


@given(st.lists(st.sampled_from(['a', 'b', 'c', 'd', 'bad', 'e'])))
@settings(max_examples=30)
def test_batches_are_of_different_calls_in_order(arguments):
  doubling = Doubling()
  with Executor([doubling], ExecutorConfig(workers=4)) as executor:
    outcomes = executor.run([Request('Double', argument) for argument in arguments])
  distinct = list(dict.fromkeys(arguments))
  batches = [distinct[at:at + 3] for at in range(0, len(distinct), 3)]
  assert sorted(doubling.batches) == sorted(batches)
  expected = [(None, 'Double: no: bad') if a == 'bad' else (a * 2, None) for a in arguments]
  assert [(outcome.result, outcome.failure) for outcome in outcomes] == expected


def test_a_batch_has_the_time_of_its_calls_and_fails_as_a_whole():
  class Slow(Doubling):
    def call_many(self, arguments, contexts):
      time.sleep(0.2 if len(arguments) == 3 else WAIT_S)
      return arguments
  with Executor([Slow()], ExecutorConfig(time_limit_s=0.15, workers=2)) as executor:
    outcomes = executor.run([Request('Double', text) for text in 'abcde'])
  assert [outcome.result for outcome in outcomes] == ['a', 'b', 'c', None, None]
  assert executor.counts['Double'].failures['time limit'] == 2


def test_a_batch_of_the_wrong_length_is_a_failure_of_all():
  class Short(Doubling):
    def call_many(self, arguments, contexts):
      return arguments[1:]
  with Executor([Short()]) as executor:
    outcomes = executor.run([Request('Double', text) for text in 'ab'])
  assert all('1 results for 2 calls' in outcome.failure for outcome in outcomes)


def test_a_tool_is_called_again_once_its_hung_calls_have_ended(monkeypatch):
  monkeypatch.setattr('toolformer_jax.tools.executor._MAX_HUNG', 2)
  released = threading.Event()
  def answer(argument):
    if argument == 'hang':
      released.wait(60)
    return 'x'
  with Executor([tool(answer, name='Up')], ExecutorConfig(time_limit_s=0.1)) as executor:
    def call(argument):
      return executor.run([Request('Up', argument)])[0]
    assert [call('hang').result for _ in range(2)] == [None, None]
    assert 'not called while 2 calls' in call('quick').failure
    released.set()
    until = time.monotonic() + 10
    while call('quick').result != 'x':
      assert time.monotonic() < until
