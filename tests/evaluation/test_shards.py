"""Several processes that evaluate together end with the files of one that does it alone."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from toolformer_jax import cli
from toolformer_jax.runtime import locks
from toolformer_jax.runtime.paths import as_path, files_under, upload

from .conftest import PROBLEMS

QUESTIONS = [{**problem, 'ID': f'{problem["ID"]}-{i}'} for i in range(3) for problem, _ in PROBLEMS]
SCRIPT = 'import sys; from toolformer_jax.cli import main; sys.exit(main())'


@pytest.fixture(autouse=True)
def short_lease(monkeypatch):
  monkeypatch.setattr(locks, 'LEASE_S', 4.0)
  monkeypatch.setattr(locks, 'RENEW_S', 0.5)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  data = pathlib.Path('data')
  for task, name, text in (('svamp', 'SVAMP.json', json.dumps(QUESTIONS)),
                           ('wikitext2', 'wiki.valid.tokens', '\n = A = \n \n Xi has 7. \n')):
    (data / task).mkdir(parents=True)
    (data / task / name).write_text(text)
  return tmp_path


def command(taught, output_dir, *extra, data_dir='data'):
  return ['evaluate', '--checkpoint', taught, '--tasks', 'svamp,wikitext2', '--data_dir', data_dir,
          '--arms', 'base,toolformer', '--tools', 'calculator', '--output_dir', str(output_dir),
          '--gin.GenerationConfig.top_k_api=1', '--gin.EngineConfig.slots=4',
          '--gin.EvaluationConfig.number_tokens=6', *extra]


def results(output_dir, data_dir='data'):
  """The files that do not depend on who computed what when, by name."""
  folder = as_path(output_dir)
  names = {file.relative_to(folder): file for file in files_under(folder)}
  return {str(name): file.read_bytes().replace(data_dir.encode(), b'data')
          for name, file in names.items()
          if name.parts[0] not in ('work', 'config.gin') and not name.name.startswith('.')}


@pytest.fixture
def alone(taught, capsys):
  assert cli.main(command(taught, 'alone')) == 0
  return results('alone'), capsys.readouterr().out


@pytest.mark.parametrize('place', ['disk', 'bucket'])
def test_the_last_shard_reports(place, request, taught, alone, capsys):
  folder = f'{request.getfixturevalue("bucket")}/out' if place == 'bucket' else 'out'
  data = 'data'
  if place == 'bucket':
    data = f'{request.getfixturevalue("bucket")}/data'
    for file in files_under(as_path('data')):
      upload(file, as_path(data) / file.relative_to('data'))
  argv = command(taught, folder, '--num_shards', '2', data_dir=data)
  assert cli.main([*argv, '--shard', '1']) == 0
  assert capsys.readouterr().out.startswith('shard 1 of 2 is complete')
  assert cli.main([*argv, '--shard', '0']) == 0
  out = capsys.readouterr().out.replace(data, 'data')
  assert (results(folder, data), out) == alone
  names = sorted(file.name for file in files_under(as_path(folder) / 'work' / 'svamp' / 'base'))
  assert names[-3:] == ['00000.1-of-2.jsonl', '00001.0-of-2.jsonl', 'run.json']


def test_shards_of_another_number_use_what_is_there(taught, alone, capsys):
  assert cli.main(command(taught, 'out', '--num_shards', '3', '--shard', '2')) == 0
  assert cli.main(command(taught, 'out')) == 0
  assert results('out') == alone[0]


def test_a_crash_in_one_shard_is_in_the_report(taught, monkeypatch, capsys):
  from toolformer_jax.evaluation import runner
  argv = command(taught, 'out', '--num_shards', '2')
  with monkeypatch.context() as patch:
    patch.setattr(runner, 'text_logprobs', lambda *_: 1 / 0)
    assert cli.main([*argv, '--shard', '0']) == 2
  assert cli.main([*argv, '--shard', '1']) == 2
  out, err = capsys.readouterr()
  assert 'wikitext2/base: ZeroDivisionError: division by zero (see ' in err and 'SVAMP' in out
  assert cli.main([*argv, '--shard', '0']) == 0, capsys.readouterr().err
  assert not [*pathlib.Path('out/errors').iterdir()]


def start(argv, **environment):
  return subprocess.Popen([sys.executable, '-c', SCRIPT, *argv], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env={**os.environ, **environment})


def test_two_processes_of_a_cluster_share_the_questions(taught, alone):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  processes = [start(command(taught, 'out', '--distributed'), JAX_COORDINATOR_ADDRESS=address,
                     JAX_NUM_PROCESSES='2', JAX_PROCESS_ID=str(i)) for i in range(2)]
  outcomes = [process.communicate(timeout=240) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outcomes
  assert any(out.endswith(alone[1]) for out, _ in outcomes)  # before it, the libraries chat
  # These processes have one device each, and the one alone has eight: log-probabilities of texts
  # differ by rounding.
  found = results('out')
  assert found.keys() == alone[0].keys()
  for name, content in found.items():
    if name.endswith('.json') or 'wikitext2' in name and name.endswith('.jsonl'):
      assert_close(json.loads(content), json.loads(alone[0][name]))
    elif name != 'plots/wikitext2.pdf':
      assert content == alone[0][name], name


def assert_close(one, other):
  """Compares JSON values; floats may differ by rounding."""
  if isinstance(one, dict):
    assert one.keys() == other.keys()
    for name in one:
      assert_close(one[name], other[name])
  elif isinstance(one, list):
    assert len(one) == len(other)
    for pair in zip(one, other, strict=True):
      assert_close(*pair)
  else:
    assert one == (pytest.approx(other, rel=1e-6) if isinstance(other, float) else other)


@pytest.mark.parametrize('place', ['disk', 'bucket'])
def test_a_killed_shard_continues(place, request, taught, alone):
  folder = f'{request.getfixturevalue("bucket")}/out' if place == 'bucket' else 'out'
  argv = command(taught, folder, '--num_shards', '2')
  killed = start([*argv, '--shard', '0'])
  first = as_path(folder) / 'work' / 'svamp' / 'base' / '00000.0-of-2.jsonl'
  end = time.monotonic() + 120
  while not first.exists() and killed.poll() is None and time.monotonic() < end:
    time.sleep(0.05)
  killed.kill()
  killed.communicate()
  assert first.exists()
  written = first.read_bytes()
  assert [cli.main([*argv, '--shard', str(i)]) for i in (1, 0)] == [0, 0]
  assert first.read_bytes() == written and results(folder) == alone[0]
