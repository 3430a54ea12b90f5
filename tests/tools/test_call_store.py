"""What was recorded is not asked for again, and a replay is the same without any tool."""

import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer_jax.errors import UserError
from toolformer_jax.media.table import MediaTable
from toolformer_jax.tools.base import Context, ToolError, call_one
from toolformer_jax.tools.call_store import Answer, CallStore
from toolformer_jax.tools.executor import Executor, Request
from toolformer_jax.tools.function import tool

from ..media.made_files import picture


class Odd:
  """Answers, refuses, or breaks, by its argument; counts how often it was asked."""

  name, version = 'Odd', '1'

  def __init__(self):
    self.asked = []

  def __call__(self, argument, context):
    self.asked.append(argument)
    if argument == 'refuse':
      raise ToolError('not: this one')
    if argument == 'break':
      raise ValueError('broken')
    return f'<{argument}> {context.title}'


def run(tools, requests, store):
  for recorded in () if store.replay else tools:
    store.add_tool(recorded)
  with Executor(tools, store=store) as executor:
    return [(outcome.result, outcome.failure) for outcome in executor.run(requests)]


@given(st.lists(st.sampled_from(['a', 'ü\ud800', '[x]', 'refuse', 'break', '']), max_size=8))
@settings(max_examples=20)
def test_a_replay_is_identical_and_asks_nobody(tmp_path_factory, arguments):
  path = tmp_path_factory.mktemp('store') / 'calls.sqlite'
  requests = [Request('Odd', a, Context(title='T')) for a in arguments]
  store = CallStore(path)
  first = run([Odd()], requests, store)
  store.close()
  replay = CallStore(path, replay=True)
  assert run([replay.replayed_tool('odd')], requests, replay) == first
  replay.close()


def test_answers_are_kept_but_crashes_are_tried_again(tmp_path):
  store = CallStore(tmp_path / 'calls.sqlite')
  odd, requests = Odd(), [Request('Odd', a) for a in ('a', 'refuse', 'break')]
  first = run([odd], requests, store)
  assert run([odd], requests, store) == first
  assert sorted(odd.asked) == ['a', 'break', 'break', 'refuse']


def test_context_and_version_are_part_of_a_call(tmp_path):
  store = CallStore(tmp_path / 'calls.sqlite')
  odd = Odd()
  run([odd], [Request('Odd', 'a', Context(title='T'))], store)
  run([odd], [Request('Odd', 'a', Context(title='U'))], store)
  odd.version = '2'
  run([odd], [Request('Odd', 'a', Context(title='U'))], store)
  assert odd.asked == ['a'] * 3


def test_what_was_not_recorded_ends_a_replay(tmp_path):
  store = CallStore(tmp_path / 'calls.sqlite')
  run([Odd()], [Request('Odd', 'a')], store)
  store.close()
  replay = CallStore(tmp_path / 'calls.sqlite', replay=True)
  with pytest.raises(UserError, match=r"Odd\('b'\) is not among the recorded calls"):
    run([replay.replayed_tool('ODD')], [Request('Odd', 'b')], replay)
  with pytest.raises(UserError, match="was not recorded with the tool 'calendar'"):
    replay.replayed_tool('calendar')


def test_a_store_that_breaks_is_no_failure_of_the_tool(tmp_path):
  store = CallStore(tmp_path / 'calls.sqlite')
  store.close()
  with pytest.raises(UserError, match='calls.sqlite cannot be'):
    with Executor([Odd()], store=store) as executor:
      executor.run([Request('Odd', 'a')])


def test_a_batch_is_taken_from_the_store_as_a_whole_or_not_at_all(tmp_path):
  class Batch(Odd):
    batch = 2

    def __call__(self, argument, context):
      return call_one(self, argument, context)

    def call_many(self, arguments, contexts):
      self.asked.append(tuple(arguments))
      return list(arguments)
  store, odd = CallStore(tmp_path / 'calls.sqlite'), Batch()
  run([odd], [Request('Odd', a) for a in 'ab'], store)
  run([odd], [Request('Odd', a) for a in 'ab'], store)
  run([odd], [Request('Odd', a) for a in 'bc'], store)
  assert odd.asked == [('a', 'b'), ('b', 'c')]


def test_what_is_no_store_is_refused(tmp_path):
  with pytest.raises(UserError, match='there is no file'):
    CallStore(tmp_path / 'nowhere', replay=True)
  (tmp_path / 'text').write_text('not a database, but long enough to be looked at ' * 100)
  for replay in True, False:
    with pytest.raises(UserError, match='is not a store of tool calls, or cannot be opened'):
      CallStore(tmp_path / 'text', replay=replay)


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
  """The limit on the size of files stands for the disk."""
  program = f"""
import resource
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.executor import Executor, ExecutorConfig, Request
from toolformer_jax.tools.function import tool
from toolformer_jax.tools.call_store import CallStore
import pathlib, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = CallStore(pathlib.Path({str(tmp_path / 'calls.sqlite')!r}))
echo = tool(lambda a: a, name='Echo')
with Executor([echo], ExecutorConfig(max_result_chars=4000), store=store) as executor:
  executor.run([Request('Echo', 'first')])
  resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
  try:
    executor.run([Request('Echo', str(i) * 4000) for i in range(10)])
  except UserError as error:
    print('error', error)
"""
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=60)
  assert done.stdout.startswith('error ') and 'cannot be written' in done.stdout, done
  store = CallStore(tmp_path / 'calls.sqlite', replay=True)
  first = store.find(tool(lambda a: a, name='Echo'), 'first', Context())
  assert first == Answer('first')


class Painter:
  """Paints a picture into a file, and answers with its handle."""

  name, version = 'Painter', '1'

  def __init__(self, folder):
    self.folder, self.asked = folder, 0

  def __call__(self, argument, context):
    self.asked += 1
    (self.folder / f'{argument}.png').write_bytes(picture(color=argument))
    return context.media.add(self.folder / f'{argument}.png')


@tool(name='Look')
def look(argument, context):
  return context.media.resolve(argument).sha256


def paint_and_look(tools, store):
  """Returns what two calls in one text answer, and then the handles of the text."""
  with Executor(tools, store=store) as executor:
    context = executor.new_context(Context('a'))
    first = [executor.run([Request(*call, context)])[0].result for call in (
        ('Painter', 'red'), ('Painter', 'blue'), ('Look', 'image 1'), ('Look', 'image 2'))]
    return first, context.media.key()


def test_what_a_call_made_is_in_the_table_of_its_text_after_a_replay(tmp_path):
  pytest.importorskip('PIL')
  painter, store = Painter(tmp_path), CallStore(tmp_path / 'calls.sqlite')
  for one in (painter, look):
    store.add_tool(one)
  answers, key = paint_and_look([painter, look], store)
  assert answers == ['image 1', 'image 2', key[0][1], key[1][1]] and len(key) == 2
  assert paint_and_look([painter, look], store) == (answers, key) and painter.asked == 2
  (tmp_path / 'red.png').unlink()  # then the call is made again, and the file is back
  assert paint_and_look([painter, look], store) == (answers, key) and painter.asked == 3
  store.close()
  for name in ('red', 'blue'):
    (tmp_path / f'{name}.png').unlink()
  replay = CallStore(tmp_path / 'calls.sqlite', replay=True)
  tools = [replay.replayed_tool(name) for name in ('painter', 'look')]
  assert paint_and_look(tools, replay) == (answers, key) and painter.asked == 3
  replay.close()


def test_a_store_of_an_earlier_version_has_no_table_of_what_calls_made(tmp_path):
  store = CallStore(tmp_path / 'calls.sqlite')
  first = run([Odd()], [Request('Odd', 'a')], store)
  store.close()
  with sqlite3.connect(tmp_path / 'calls.sqlite') as database:
    database.execute('DROP TABLE made')
  database.close()
  for replay in (True, False):
    store = CallStore(tmp_path / 'calls.sqlite', replay=replay)
    assert run([Odd()], [Request('Odd', 'a')], store) == first
    store.close()


def test_a_call_that_is_late_does_not_change_the_media_of_its_text(tmp_path):
  pytest.importorskip('PIL')
  late, done = threading.Event(), threading.Event()
  class Slow(Painter):
    time_limit_s = 0.05

    def __call__(self, argument, context):
      late.wait(10)
      handle = super().__call__(argument, context)
      done.set()
      return handle
  context = Context(media=MediaTable())
  with Executor([Slow(tmp_path)]) as executor:
    outcome, = executor.run([Request('Painter', 'red', context)])
    late.set()
    assert done.wait(10)
  assert 'time limit' in outcome.failure and len(context.media) == 0
