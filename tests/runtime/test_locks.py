"""Locks on disk and leases in a bucket: one holder, who may be killed."""

import json
import subprocess
import sys
import time

import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.runtime import locks
from toolformer_jax.runtime.paths import as_path
from toolformer_jax.runtime.run_dir import LockedFolder, Shard

HOLD = """
import sys, time
from toolformer_jax.runtime import locks
from toolformer_jax.runtime.paths import as_path
locks.LEASE_S, locks.RENEW_S = 3.0, 0.3
with locks.lock(as_path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(60)
"""


@pytest.fixture(autouse=True)
def short_lease(monkeypatch):
  monkeypatch.setattr(locks, 'LEASE_S', 3.0)
  monkeypatch.setattr(locks, 'RENEW_S', 0.3)


@pytest.fixture(params=['disk', 'bucket'])
def path(request, tmp_path):
  folder = request.getfixturevalue('bucket') if request.param == 'bucket' else tmp_path
  return as_path(folder) / '.lock'


@pytest.fixture
def holder(path):
  """Another process that holds the lock."""
  process = subprocess.Popen([sys.executable, '-c', HOLD, str(path)], stdout=subprocess.PIPE,
                             text=True)
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()


def test_a_lock_has_one_holder_at_a_time(path, holder):
  assert locks.is_held(path)
  with pytest.raises(locks.LockedError), locks.lock(path, wait=False):
    pass


def test_the_lock_of_a_killed_process_can_be_taken(path, holder):
  holder.kill()
  holder.wait()
  start = time.monotonic()
  with locks.lock(path, wait=False):
    assert time.monotonic() - start < locks.LEASE_S + 2
    assert path.exists()
  with locks.lock(path, wait=False):  # and released, again
    pass


def test_who_waits_gets_the_lock_when_it_is_released(path, holder):
  holder.kill()
  holder.wait()
  with locks.lock(path):
    pass


def test_a_lease_is_renewed_and_removed(bucket):
  path = as_path(bucket) / '.lock'
  with locks.lock(path):
    first = json.loads(path.read_bytes())
    time.sleep(2 * locks.LEASE_S)
    assert json.loads(path.read_bytes())['time'] > first['time'] and locks.is_held(path)
  assert not path.exists()


def test_who_lost_its_lease_is_stopped(bucket):
  from google.cloud import storage
  path = as_path(bucket) / '.lock'
  with pytest.raises(KeyboardInterrupt), locks.lock(path):  # noqa: PT012 - raised while it sleeps
    storage.Client().bucket(path.parts[2]).blob('.lock').upload_from_string('of another process')
    time.sleep(10)


def test_a_lease_says_who_holds_it(bucket, caplog):
  path = as_path(bucket) / '.lock'
  with caplog.at_level('INFO', 'toolformer_jax'), locks.lock(path):
    assert locks.is_held(path)
  assert f'{bucket} belongs to process ' in caplog.text
  assert 'Waiting for at most 3 s' in caplog.text


@pytest.mark.parametrize('place', ['disk', 'bucket'])
def test_a_folder_has_one_writer_for_each_shard(place, request, tmp_path):
  folder = as_path(request.getfixturevalue('bucket') if place == 'bucket' else tmp_path) / 'run'
  with LockedFolder(folder, {'a': 1}, {}, Shard(0, 2)), LockedFolder(folder, {'a': 1}, {},
                                                                     Shard(1, 2)) as second:
    with pytest.raises(UserError, match='another process is writing'):
      LockedFolder(folder, {'a': 1}, {}, Shard(1, 2))
    with pytest.raises(UserError, match='in use by processes with 2 shards, not 3'):
      LockedFolder(folder, {'a': 1}, {}, Shard(2, 3))
    second.write_text('file', 'text')
  with pytest.raises(UserError, match=r'another configuration: a \(1 then, 2 now\)'):
    LockedFolder(folder, {'a': 2}, {})
  assert (folder / 'file').read_bytes() == b'text'
