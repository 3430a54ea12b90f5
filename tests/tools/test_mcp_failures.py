"""Whatever an MCP server does is a failure of its calls and no more, and nothing is left of it."""

import os
import pathlib
import shlex
import subprocess
import sys
import threading
import time
from concurrent import futures

import pytest

from toolformer_jax.tools.base import Context, ToolError

pytest.importorskip('mcp', reason='the package mcp is not installed')

WAIT_S = 30.0  # Far more than anything here needs.
ROGUE = shlex.join([sys.executable, str(pathlib.Path(__file__).parent / 'mcp_rogue.py'), 'tame'])


def ask(tool, argument=''):
  return tool(argument, Context())


def reason(tool, argument='', kind=ToolError):
  """Why the call fails."""
  with pytest.raises(kind) as failure:
    ask(tool, argument)
  assert type(failure.value) is kind
  return str(failure.value)


def gone(pid):
  """Whether the process ends soon, and is no zombie of ours."""
  deadline = time.monotonic() + WAIT_S
  while time.monotonic() < deadline:
    try:
      stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except (FileNotFoundError, ProcessLookupError):
      return True
    state, parent = stat.rpartition(')')[2].split()[:2]
    # An orphan stays a zombie where nobody collects it.
    if state == 'Z' and int(parent) != os.getpid():
      return True
    time.sleep(0.02)
  return False


@pytest.mark.parametrize('name, kind, why', [
    ('die', ConnectionError, 'the server exited'),
    ('flood', ConnectionError, 'the server wrote 2000 lines that are not responses'),
    ('news', ConnectionError, 'the server wrote 2000 lines that are not responses'),
    ('pings', ConnectionError, 'the server wrote 2000 lines that are not responses'),
    ('bytes', ConnectionError, 'the server wrote invalid UTF-8'),
    ('long', ConnectionError, 'the server wrote a line of more than 16777216 bytes'),
])
def test_a_server_that_fails_is_ended_and_started_again(rogue, name, kind, why):
  before = ask(rogue['pid'])
  assert reason(rogue[name], kind=kind) == why
  assert ask(rogue['pid']) != before
  assert gone(before)


def test_a_server_that_hangs_and_refuses_to_end_is_killed_and_started_again(connect):
  tools = connect('mcp_rogue.py', 'tame', call_limit_s=0.5)
  before = ask(tools['pid'])
  assert reason(tools['stubborn'], kind=TimeoutError) == 'no answer within 0.5 seconds'
  assert ask(tools['pid']) != before
  assert gone(before)


@pytest.mark.parametrize('name, kind, why', [
    ('shape', ConnectionError, 'the answer is not a valid tool result'),
    ('error', ConnectionError, 'the server failed: no cheese today'),
    ('invalid', ToolError, 'error: cheese is wanted'),
])
def test_a_bad_answer_is_the_failure_of_its_call_only(rogue, name, kind, why):
  before = ask(rogue['pid'])
  assert reason(rogue[name], kind=kind) == why
  assert ask(rogue['pid']) == before


@pytest.mark.parametrize('name', ['stray', 'chatter'])
def test_what_is_not_a_message_does_no_harm(rogue, name, capfd):
  assert ask(rogue[name], 'answer') == 'answer'
  assert capfd.readouterr() == ('', '')


def test_a_slow_call_does_not_take_others_with_it(connect):
  tools = connect('mcp_server.py', call_limit_s=1.2)
  before = ask(tools['pid'])
  with futures.ThreadPoolExecutor() as pool:
    slow = pool.submit(ask, tools['nap'], '60')
    time.sleep(0.8)
    other = pool.submit(ask, tools['nap'], '0.6')
    assert isinstance(slow.exception(WAIT_S), TimeoutError)
    assert ask(tools['pid']) != before  # and the other one went on
    assert other.result(WAIT_S) == 'slept 0.6'
  assert gone(before)


def test_many_threads_share_a_new_start(rogue):
  reason(rogue['die'], kind=ConnectionError)
  with futures.ThreadPoolExecutor(8) as pool:
    assert len(set(pool.map(lambda _: ask(rogue['pid']), range(16)))) == 1


@pytest.mark.parametrize('name, kind, why', [
    ('long', ConnectionError, 'more than 16777216 bytes'),
    ('bomb', ConnectionError, 'Failed to parse JSON'),
    ('bytes', ConnectionError, 'Failed to parse JSON'),
    ('cut', ConnectionError, 'Connection closed'),
    ('status', ConnectionError, 'Server returned an error response'),
    ('hang', TimeoutError, 'no answer within 1 seconds'),
])
def test_a_failure_over_http_is_that_of_its_call_only(rogue_web, connect, name, kind, why):
  tools = connect(rogue_web.url, call_limit_s=1 if name == 'hang' else WAIT_S)
  assert why in reason(tools[name], 'x', kind)
  assert ask(tools['echo'], 'still there') == 'still there'


def test_a_session_that_the_server_forgot_is_opened_again(rogue_web, connect):
  tools = connect(rogue_web.url)
  ask(tools['forget'], 'x')
  assert ask(tools['echo'], 'known again') == 'known again'


def test_a_server_may_come_back(rogue_web, connect):
  tools = connect(rogue_web.url)
  rogue_web.stop()
  assert reason(tools['echo'], kind=ConnectionError)
  rogue_web.start()
  assert ask(tools['echo'], 'here again') == 'here again'


def test_a_connection_is_tried_again(rogue_web, connect):
  tools = connect(rogue_web.url)
  rogue_web.stop()
  later = threading.Thread(target=rogue_web.start)
  later.start()
  assert ask(tools['echo'], 'patience') == 'patience'
  later.join()


def test_closing_leaves_no_process_no_thread_and_no_tool(connect):
  threads = threading.active_count()
  tools = connect('mcp_rogue.py', 'tame')
  server, child = ask(tools['pid']), ask(tools['spawn'])
  tools['echo'].close()
  with pytest.raises(ProcessLookupError):
    os.kill(int(server), 0)  # not even a zombie
  assert gone(child)
  assert threading.active_count() == threads
  with pytest.raises(RuntimeError, match='closed'):
    ask(tools['pid'])
  tools['pid'].close()


def test_closing_fails_the_calls_that_are_under_way(connect):
  tools = connect('mcp_rogue.py', 'tame')
  with futures.ThreadPoolExecutor() as pool:
    calls = [pool.submit(ask, tools['hang']) for _ in range(4)]
    time.sleep(0.2)
    tools['hang'].close()
    assert all(isinstance(call.exception(WAIT_S), ConnectionError) for call in calls)


def test_many_ends_leave_no_file_open(rogue):
  reason(rogue['die'], kind=ConnectionError)
  ask(rogue['pid'])
  files = len(os.listdir('/proc/self/fd'))
  for _ in range(10):
    reason(rogue['die'], kind=ConnectionError)
  ask(rogue['pid'])
  deadline = time.monotonic() + WAIT_S
  while len(os.listdir('/proc/self/fd')) > files and time.monotonic() < deadline:
    time.sleep(0.02)
  assert len(os.listdir('/proc/self/fd')) <= files


PROGRAM = """
import sys, time
from toolformer_jax.tools.executor import Executor, ExecutorConfig, Request
from toolformer_jax.tools.mcp import mcp_tools
server, end, *names = sys.argv[1:]
executor = Executor(mcp_tools(server, call_limit_s=0.5), ExecutorConfig(workers=1))
outcomes = executor.run([Request(name, 'x') for name in names])
print(*(outcome.result for outcome in outcomes), flush=True)
executor.submit(Request('hang', 'x'))
time.sleep(0.1)
exec(end)
"""


def run(server, end, *names):
  """Lets a program call the tools `names`, and `end` during a call; returns results and errors."""
  done = subprocess.run([sys.executable, '-c', PROGRAM, server, end, *names], capture_output=True,
                        text=True, timeout=WAIT_S)
  return done.stdout.split(), done.stderr


@pytest.mark.parametrize('end, printed', [
    ('pass', ''), ('raise SystemExit(1 / 0)', 'ZeroDivisionError: division by zero')])
def test_the_end_of_the_program_is_that_of_the_server(end, printed):
  pids, errors = run(ROGUE, end, 'pid', 'spawn')
  assert errors.strip().endswith(printed) and bool(errors) == bool(printed)
  assert len(pids) == 2 and all(gone(pid) for pid in pids)


ORPHAN = """
import sys, time
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.mcp import mcp_tools
tools = {tool.name: tool for tool in mcp_tools(sys.argv[1])}
print(tools['pid']('', Context()), tools['spawn']('', Context()), flush=True)
tools['stubborn']('', Context())
"""


def test_a_server_that_ignores_its_end_dies_with_a_program_that_is_killed():
  program = subprocess.Popen([sys.executable, '-c', ORPHAN, ROGUE], stdout=subprocess.PIPE,
                             text=True)
  pids = program.stdout.readline().split()
  time.sleep(0.5)  # it ignores SIGTERM and reads no input now
  program.kill()
  program.communicate()
  assert len(pids) == 2 and all(gone(pid) for pid in pids)


@pytest.mark.parametrize('over', ['stdio', 'http'])
def test_nothing_that_a_server_does_is_shown(rogue_web, over):
  server = rogue_web.url if over == 'http' else ROGUE
  _, errors = run(server, 'time.sleep(0.6)', 'stray', 'flood', 'bytes', 'long', 'chatter', 'shape',
                  'error', 'invalid', 'cut', 'status', 'forget', 'die')
  assert errors == ''
