"""What a user may call a model, and what is said to a name that is none."""

import jax
import pytest

from toolformer_jax import sharding
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.checkpoints.orbax import save_model
from toolformer_jax.checkpoints.pretrained import load_pretrained, pretrained_config
from toolformer_jax.errors import UserError


def _load(name):
  return load_pretrained(str(name), mesh=sharding.make_mesh(devices=jax.devices()[:1]))


@pytest.mark.parametrize(('name', 'message'), [
  ('smolm2-135m', 'did you mean smollm2-135m'),
  ('wikipedia-sample', 'unknown model'),
  ('no/such/folder', 'there is no checkpoint no/such/folder'),
  ('no_such_file.gguf', 'there is no file no_such_file.gguf'),
  ('hf://org/name', 'cannot download hf://org/name'),
])
def test_names_that_are_no_model(name, message):
  with pytest.raises(UserError, match=message):
    _load(name)


@pytest.mark.parametrize(('file', 'message'), [
  ('model.safetensors', 'Hugging Face directory'),
  ('notes.txt', 'does not hold a usable model')])
def test_folders_that_are_no_model(file, message, tmp_path):
  (tmp_path / file).touch()
  with pytest.raises(UserError, match=message):
    _load(tmp_path)


@pytest.mark.parametrize(('name', 'message'), [
  ('broken.gguf', 'not a readable GGUF file'), ('model.bin', 'is not a checkpoint')])
def test_files_that_are_no_model(name, message, tmp_path):
  (tmp_path / name).write_bytes(b'nothing of the kind')
  with pytest.raises(UserError, match=message):
    _load(tmp_path / name)


def test_a_gguf_file_by_its_path(smollm2_path):
  model = _load(smollm2_path)
  assert model.config.layers == 30
  assert model.variables['params']['embedding'].shape == (49152, 576)


def test_sizes_are_known_without_weights(smollm2_path, make_model, tmp_path):
  assert pretrained_config(str(smollm2_path)).embed_dim == 576
  model = make_model()
  save_model(tmp_path / 'ours', model)
  save_directory(tmp_path / 'theirs', model)
  for name in ('ours', 'theirs'):
    assert pretrained_config(str(tmp_path / name)) == model.config
