"""Work in several processes: in order, bounded, and over when the parent is."""

import functools
import operator
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.processes import map_in_order


@pytest.mark.parametrize('processes', [1, 2, 5])
@pytest.mark.parametrize('count', [0, 1, 3, 4, 50])
def test_results_are_in_order_whatever_the_number_of_processes(count, processes):
  double = functools.partial(operator.mul, 2)
  found = list(map_in_order(double, iter(range(count)), chunk=3, processes=processes))
  assert found == [2 * number for number in range(count)]


def test_one_chunk_starts_no_process():
  assert set(map_in_order(_pid, range(4), chunk=4, processes=2)) == {os.getpid()}


def test_few_items_are_in_memory():
  taken = []
  items = (taken.append(number) or number for number in range(1000))
  results = map_in_order(abs, items, chunk=2, processes=2)
  next(results)
  assert len(taken) <= 2 * (2 + 2)
  results.close()


def test_errors_come_as_they_are():
  with pytest.raises(ZeroDivisionError):
    list(map_in_order(functools.partial(operator.truediv, 1), [2, 1, 0, 4], processes=2))


def test_a_process_that_ends_is_an_error_for_people():
  with pytest.raises(UserError, match='ended before its time'):
    list(map_in_order(os._exit, [3, 3, 3], processes=2))


def test_what_is_printed_goes_to_standard_error(capfd):
  assert list(map_in_order(print, ['a', 'b'], processes=2)) == [None, None]
  captured = capfd.readouterr()
  assert captured.out == '' and sorted(captured.err.split()) == ['a', 'b']


SCRIPT = '''
import functools, time
from toolformer_jax.runtime.processes import map_in_order
print('ready', flush=True)
list(map_in_order(time.sleep, [0.0, 60.0, 60.0], processes=2))
'''


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
  # A script as users write them, without `if __name__ == '__main__':`.
  script = tmp_path / 'script.py'
  script.write_text(SCRIPT)
  here = str(pathlib.Path(__file__).parents[2])
  parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, 'PYTHONPATH': here}, start_new_session=True)
  assert parent.stdout.readline() == 'ready\n'
  deadline = time.monotonic() + 30
  while len(_session(parent.pid)) < 3:
    assert time.monotonic() < deadline
    time.sleep(0.05)
  parent.send_signal(signal.SIGINT)
  parent.wait(timeout=20)
  while _session(parent.pid):
    assert time.monotonic() < deadline
    time.sleep(0.05)


def _pid(_):
  return os.getpid()


def _session(leader):
  listed = subprocess.run(['ps', '-s', str(leader), '-o', 'pid='], capture_output=True, text=True)
  return listed.stdout.split()
