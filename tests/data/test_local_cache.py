"""Hashes of large files are computed once, and never of a file that has changed."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from toolformer_jax.data import local_cache
from toolformer_jax.data.local_cache import file_sha256

LONG_AGO = time.time() - 3600
SIZE = 2**25 + 1


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'hashes'


@pytest.fixture
def large(tmp_path, monkeypatch):
  """A file of a size that is kept; changes a moment ago count as settled."""
  monkeypatch.setattr(local_cache, '_RECENT_NS', 0)
  path = tmp_path / 'large'
  path.write_bytes(bytes(SIZE))
  return path


def bytes_read(path):
  """How much of the file this process reads to hash it, and the hash."""
  before = int(read_counter())
  found = file_sha256(path)
  return int(read_counter()) - before, found


def read_counter():
  lines = pathlib.Path('/proc/self/io').read_text().splitlines()
  return dict(line.split(': ') for line in lines)['rchar']


def test_an_unchanged_file_is_not_read_again(large):
  expected = hashlib.sha256(large.read_bytes()).hexdigest()
  first, found = bytes_read(large)
  assert first >= SIZE and found == expected
  again, found = bytes_read(large)
  assert again < 10_000 and found == expected
  os.chdir(large.parent)
  assert bytes_read(pathlib.Path('large'))[0] < 10_000  # the same file by another path
  program = f'''
import pathlib
from toolformer_jax.data.local_cache import file_sha256
assert file_sha256(pathlib.Path({str(large)!r})) == {expected!r}
print([line for line in open('/proc/self/io') if 'rchar' in line][0].split()[1])'''
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True,
                        cwd=pathlib.Path(__file__).parents[2])
  assert int(done.stdout) < SIZE


@pytest.mark.parametrize('times', [None, (LONG_AGO, LONG_AGO)])
def test_a_changed_file_is_noticed_even_with_its_old_size_and_time(large, times):
  os.utime(large, times)
  file_sha256(large)
  with open(large, 'r+b') as file:
    file.seek(SIZE // 2)
    file.write(b'x')
  os.utime(large, times)
  assert file_sha256(large) == hashlib.sha256(large.read_bytes()).hexdigest()


def test_a_file_that_takes_the_place_of_another_is_hashed(large, tmp_path):
  file_sha256(large)
  other = tmp_path / 'other'
  other.write_bytes(b'y' * SIZE)
  os.replace(other, large)
  assert file_sha256(large) == hashlib.sha256(b'y' * SIZE).hexdigest()


def test_what_was_changed_just_now_is_not_kept(large, monkeypatch, cache):
  monkeypatch.undo()
  file_sha256(large)
  assert not list(cache.glob('*'))


@pytest.mark.parametrize('damage', [
    b'', b'{', b'[]', b'{"sha256": 5}', b'null', b'\xff', b'[' * 100_000])
def test_a_damaged_file_of_the_cache_is_not_believed(large, cache, damage):
  expected = file_sha256(large)
  kept, = cache.iterdir()
  fields = json.loads(kept.read_text())
  kept.write_bytes(damage)
  assert file_sha256(large) == expected
  assert json.loads(kept.read_text()) == fields  # mended
  kept.write_text(json.dumps({**fields, 'sha256': 'abc'}))
  assert file_sha256(large) == expected


def test_a_cache_that_cannot_be_written_only_costs_time(large, cache):
  cache.parent.write_text('a file')
  assert file_sha256(large) == hashlib.sha256(large.read_bytes()).hexdigest()


def test_many_at_once(large, cache):
  with ThreadPoolExecutor(8) as threads:
    assert len(set(threads.map(file_sha256, [large] * 16))) == 1
  assert len(list(cache.iterdir())) == 1


def test_small_files_are_always_read(tmp_path, cache):
  (tmp_path / 'small').write_bytes(b'abc')
  file_sha256(tmp_path / 'small')
  assert not cache.exists()
