"""PyTorch's own files of weights: read as safetensors are, and never run."""

import json
import pickle

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.errors import UserError
from toolformer_jax.sharding import make_mesh


@pytest.fixture
def saved(make_model, tmp_path):
  """A directory as safetensors, and what its file held."""
  model = make_model(positions='learned', rotary_dim=0, norm='layer', gated_mlp=False, kv_heads=4,
                     activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True)
  save_directory(tmp_path, model)
  tensors = load_file(tmp_path / 'model.safetensors')
  (tmp_path / 'model.safetensors').unlink()
  return tmp_path, tensors, model


def read(path):
  return load_pretrained(str(path), mesh=make_mesh(devices=jax.devices()[:1]))


@pytest.mark.parametrize('zipped', [True, False])
def test_one_file(saved, zipped):
  path, tensors, model = saved
  tensors = {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}
  torch.save(tensors, path / 'pytorch_model.bin', _use_new_zipfile_serialization=zipped)
  jax.tree.map(np.testing.assert_array_equal, read(path).variables, model.variables)


def test_several_files_of_old_names_in_half_precision(saved):
  path, tensors, model = saved
  old = {name.removeprefix('transformer.'): t.bfloat16() for name, t in sorted(tensors.items())}
  parts = [dict(list(old.items())[::2]), dict(list(old.items())[1::2])]
  for i, part in enumerate(parts):
    torch.save(part, path / f'part-{i}.bin')
  (path / 'pytorch_model.bin.index.json').write_text(json.dumps({'weight_map': {
      name: f'part-{i}.bin' for i, part in enumerate(parts) for name in part}}))
  def compare(found, whole):
    np.testing.assert_array_equal(found, whole.astype('bfloat16').astype('float32'))
  jax.tree.map(compare, read(path).variables, model.variables)


class Evil:
  """What makes a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), 'w')


@pytest.mark.parametrize('save', [
  lambda value, path: path.write_bytes(pickle.dumps(value)), torch.save])
def test_no_code_is_run(saved, save):
  path, tensors, _ = saved
  save({**tensors, 'evil': Evil(path / 'made')}, path / 'pytorch_model.bin')
  with pytest.raises(UserError, match='pytorch_model.bin is broken, or contains something else'):
    read(path)
  assert not (path / 'made').exists()


@pytest.mark.parametrize('content', [b'', b'PK', b'PK\3\4half of it'])
def test_broken_files(saved, content):
  path, _, _ = saved
  (path / 'pytorch_model.bin').write_bytes(content)
  with pytest.raises(UserError, match='pytorch_model.bin is broken, or contains something else'):
    read(path)


@pytest.mark.parametrize('wrap', [
  lambda tensors: {'model': tensors}, lambda tensors: next(iter(tensors.values())),
  lambda tensors: {1: next(iter(tensors.values()))}])
def test_something_else_than_tensors(saved, wrap):
  path, tensors, _ = saved
  torch.save(wrap(tensors), path / 'pytorch_model.bin')
  with pytest.raises(UserError, match='does not contain a dictionary of tensors'):
    read(path)
