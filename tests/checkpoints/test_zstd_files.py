"""Weights compressed by Zstandard: the same model, and errors that name what is wrong."""

import json
import shutil
import sys
import tempfile

import jax
import numpy as np
import pytest
import zstandard
from safetensors.numpy import load_file

import toolformer_jax as tf_jax
from toolformer_jax import CompressionConfig, cli
from toolformer_jax.checkpoints import huggingface
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.checkpoints.pretrained import load_pretrained, pretrained_config
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.output_dir import check_holds_no_checkpoint
from toolformer_jax.sharding import make_mesh

INT4 = dict(bits='int4', rounding='nearest')
FILE = 'model.safetensors.zst'


def loaded(path):
  return load_pretrained(str(path), mesh=make_mesh(devices=jax.devices()[:1]))


def compressed(model, folder, zstd=True, **settings):
  return tf_jax.compress(model, output_dir=folder, config=CompressionConfig(**settings), zstd=zstd)


@pytest.fixture
def stored(make_model, tmp_path, monkeypatch):
  """A folder with compressed weights; temporary files go to the folder `scratch`."""
  compressed(make_model(), tmp_path / 'stored')
  (tmp_path / 'scratch').mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'scratch'))
  return tmp_path / 'stored'


@pytest.mark.parametrize('settings', [{}, INT4, dict(bits='int8', rounding='nearest'),
                                      dict(sparsity=0.5, weight_scores='magnitude')])
@pytest.mark.parametrize('file_bytes', [2**32, 20_000], ids=['one file', 'several'])
def test_the_model_is_the_same(make_model, tmp_path, monkeypatch, settings, file_bytes):
  monkeypatch.setattr(huggingface, '_FILE_BYTES', file_bytes)
  model = make_model()
  plain = compressed(model, tmp_path / 'plain', zstd=False, **settings)
  found = compressed(model, tmp_path / 'zstd', **settings)
  files = sorted((tmp_path / 'plain').glob('*.safetensors'))
  assert (len(files) > 1) == (file_bytes < 2**32)
  for file in files:
    content = (tmp_path / 'zstd' / f'{file.name}.zst').read_bytes()
    assert zstandard.ZstdDecompressor().decompress(content) == file.read_bytes()
  assert not list((tmp_path / 'zstd').glob('*.safetensors'))
  assert plain.zstd_bytes is None and found.weight_bytes == plain.weight_bytes
  assert found.zstd_bytes == sum(one.stat().st_size for one in (tmp_path / 'zstd').glob('*.zst'))
  jax.tree.map(np.testing.assert_array_equal, loaded(tmp_path / 'zstd').variables,
               loaded(tmp_path / 'plain').variables)


def test_the_folder_says_what_was_saved(make_model, tmp_path, caplog):
  caplog.set_level('INFO')
  result = compressed(make_model(), tmp_path / 'o', sparsity=0.9, weight_scores='magnitude')
  record = json.loads((tmp_path / 'o' / 'compression.json').read_text())
  assert record['zstd_bytes'] == result.zstd_bytes < 0.6 * record['weight_bytes']
  assert 'zstd: the weights take' in caplog.text
  assert '`zstd -d --rm *.zst`' in (tmp_path / 'o' / 'README.md').read_text()


def test_no_temporary_file_is_left(stored):
  model = loaded(stored)
  assert not list((stored.parent / 'scratch').iterdir())
  assert np.isfinite(jax.tree.leaves(model.variables)[0]).all()


def test_the_configuration_alone_needs_no_decompression(stored, monkeypatch):
  monkeypatch.setattr(shutil, 'disk_usage', lambda folder: pytest.fail('the weights were opened'))
  assert pretrained_config(str(stored)).layers == 2


def test_plain_weights_take_precedence(make_model, stored):
  other = make_model(layers=3)
  save_directory(stored, other)
  assert loaded(stored).config.layers == 3


@pytest.mark.parametrize('change', [
  lambda content: content[:-5], lambda content: content[:len(content) // 2],
  lambda content: content[:20]])
def test_a_file_that_is_not_complete_is_refused(stored, change):
  file = stored / FILE
  file.write_bytes(change(file.read_bytes()))
  with pytest.raises(UserError, match=f'{FILE} (is not complete|cannot be decompressed)'):
    loaded(stored)
  assert not list((stored.parent / 'scratch').iterdir())


@pytest.mark.parametrize('place', [0.3, 0.6, 0.9])
def test_a_damaged_file_is_refused(stored, place):
  content = bytearray((stored / FILE).read_bytes())
  content[int(place * len(content))] ^= 16
  (stored / FILE).write_bytes(content)
  with pytest.raises(UserError, match=f'{FILE} cannot be decompressed: '):
    loaded(stored)


@pytest.mark.parametrize(('content', 'message'), [
  (b'', 'is damaged: it is no file of Zstandard'),
  (b'no zstandard at all', 'is damaged: it is no file of Zstandard'),
  (b'\x28\xb5\x2f\xfd\xc0\x58' + (2**60).to_bytes(8, 'little') + bytes(30),
   r'1,152,921,504,606,846,976 bytes when it is decompressed, and .* set TMPDIR'),
  (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100)),
   'does not say how large its content is'),
  (zstandard.compress(b'no tensors'), 'is not a complete safetensors file')])
def test_a_file_that_is_none_is_refused(stored, content, message):
  (stored / FILE).write_bytes(content)
  with pytest.raises(UserError, match=message) as error:
    loaded(stored)
  assert FILE in str(error.value) and '\n' not in str(error.value)


def test_the_package_is_asked_for(make_model, stored, tmp_path, monkeypatch, capsys):
  save_directory(tmp_path / 'plain', make_model())
  monkeypatch.setitem(sys.modules, 'zstandard', None)
  with pytest.raises(UserError, match='pip install zstandard'):
    loaded(stored)
  with pytest.raises(UserError, match='pip install zstandard'):
    compressed(make_model(), tmp_path / 'o')
  argv = ['compress', '--checkpoint', str(tmp_path / 'plain'), '--output_dir', str(tmp_path / 'o')]
  assert cli.main([*argv, '--zstd']) == 2 and not (tmp_path / 'o').exists()
  assert 'pip install zstandard' in capsys.readouterr().err
  assert cli.main(argv) == 0  # without --zstd nothing is missing


def test_commands_read_and_write_compressed_weights(stored, tmp_path, capsys):
  again = tmp_path / 'again'
  assert cli.main(['compress', '--checkpoint', str(stored), '--output_dir', str(again), '--zstd',
                   '--gin.CompressionConfig.bits="int4"',
                   '--gin.CompressionConfig.rounding="nearest"']) == 0
  assert cli.main(['export', '--checkpoint', str(again), '--output_dir', str(tmp_path / 'o')]) == 0
  found = load_file(tmp_path / 'o' / 'model.safetensors')
  jax.tree.map(np.testing.assert_array_equal, loaded(again).variables,
               loaded(tmp_path / 'o').variables)
  assert found and capsys.readouterr().out.split() == [str(again), str(tmp_path / 'o')]


def test_no_run_is_mixed_with_compressed_weights(stored):
  (stored / 'config.json').unlink()
  with pytest.raises(UserError, match=f'it holds a checkpoint, with {FILE}'):
    check_holds_no_checkpoint(stored)
