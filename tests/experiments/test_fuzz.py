"""A small part of `fuzz.py`; all of it takes an hour."""

import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
KINDS = ['grammar', 'calculator', 'jsonl', 'compressed', 'mediawiki', 'wikitext', 'config.json',
         'tokenizer.json', 'safetensors', 'gguf', 'gin', 'mcp_arguments', 'view']


def test_damaged_inputs_are_accepted_or_refused(tmp_path):
  pytest.importorskip('mcp', reason='the package mcp is not installed')
  done = subprocess.run(
      [sys.executable, str(REPOSITORY / 'experiments' / 'fuzz.py'), '--output_dir', str(tmp_path),
       '--inputs', '600', '--seed', '1', '--kinds', ','.join(KINDS)],
      capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(REPOSITORY)})
  counts = [json.loads(line) for line in done.stdout.splitlines()]
  failures = [path.read_text('utf-8') for path in (tmp_path / 'failures').iterdir()]
  assert done.returncode == 0, (counts, *failures, done.stderr)
  assert [row['kind'] for row in counts] == [*KINDS, 'all'] and counts[-1]['inputs'] > 500
  assert all({'accepted', 'refused'} & row.keys() for row in counts)


def test_an_input_depends_on_its_number_alone(experiment):
  mutation = experiment('mutation')
  def changed(number):
    return mutation.mutate_bytes(b'a text', [b'another'], random.Random(number))
  assert [changed(i) for i in range(50)] == [changed(i) for i in range(50)]
  assert len({changed(i) for i in range(50)}) > 25


def test_a_failure_of_each_kind_is_counted(experiment, tmp_path, monkeypatch):
  """A traceback, an end of the process and a hang, in a process that is started again."""
  fuzz = experiment('fuzz')
  (tmp_path / 'failures').mkdir()
  (tmp_path / 'broken_kind.py').write_text(
      'import os, time\nimport fuzz\nfrom fuzz_target import Target\n'
      'def run(number):\n'
      '  if number == 1:\n    raise ValueError("no UserError")\n'
      '  if number == 2:\n    os._exit(1)\n'
      '  if number == 3:\n    time.sleep(1000)\n'
      '  return "accepted"\n'
      'def work(kind, numbers, seed, folder, parent):\n'
      '  fuzz.TARGETS["broken"] = lambda _: Target(lambda rng: next(todo), run)\n'
      '  todo = iter(numbers)\n'
      '  fuzz.work(kind, numbers, seed, folder, parent)\n')
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.setattr(fuzz, 'work', __import__('broken_kind').work)
  args = type('Arguments', (), {'seed': 0, 'output_dir': tmp_path, 'limit_s': 2.0})
  counts, slowest = fuzz.run_kind('broken', range(6), args)
  assert counts == {'accepted': 3, 'tracebacks': 1, 'crashes': 1, 'hangs': 1} and slowest >= 2
  assert {path.name for path in (tmp_path / 'failures').iterdir()} == {
      f'broken-{i}.txt' for i in (1, 2, 3)}
