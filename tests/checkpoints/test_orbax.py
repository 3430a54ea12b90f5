"""A saved model comes back the same, on any mesh, or not at all."""

import json

import jax
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.checkpoints.orbax import load_orbax_model, save_model
from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  BottleneckConfig,
  Ia3Config,
  LoraConfig,
  PrefixConfig,
)

TOKENS = np.arange(40).reshape(4, 10)


def _logits(model):
  with jax.set_mesh(model.mesh):
    apply = jax.jit(model.decoder.apply)
    return np.asarray(apply(model.variables, model.put_batch(TOKENS))[0])


@pytest.mark.parametrize('adapter', [
  None, LoraConfig(rank=4, target_modules=('out', 'down'), rank_pattern={'out': 2}),
  AdaLoraConfig(init_rank=3, target_rank=2), Ia3Config(), BottleneckConfig(reduction_factor=8.0),
  PrefixConfig(num_virtual_tokens=3)])
def test_a_model_comes_back_the_same(make_model, adapter, tmp_path):
  model = make_model(adapter=adapter)
  save_model(tmp_path / 'saved', model)
  loaded = load_pretrained(str(tmp_path / 'saved'), mesh=model.mesh)
  assert loaded.config == model.config
  assert loaded.variables.keys() == model.variables.keys()
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, model.variables)
  assert loaded.tokenizer.encode('48 [x -> y]') == model.tokenizer.encode('48 [x -> y]')
  assert loaded.tokenizer.start_id == model.tokenizer.start_id


def test_a_model_goes_onto_another_mesh(make_model, tmp_path):
  model = make_model(adapter=LoraConfig(rank=4))
  save_model(tmp_path / 'saved', model)
  loaded = load_orbax_model(tmp_path / 'saved', sharding.make_mesh(2, 2, 2))
  kernel = loaded.variables['params']['blocks']['mlp']['up']['kernel']
  assert kernel.sharding.shard_shape(kernel.shape) == (2, 16, 32)  # of 2, 32, 64
  np.testing.assert_allclose(_logits(loaded), _logits(model), atol=1e-5)


def test_the_dtype_of_the_computation_is_the_callers(make_model, tmp_path):
  model = make_model()
  save_model(tmp_path, model)
  assert load_orbax_model(tmp_path, model.mesh, 'bfloat16').config.dtype == 'bfloat16'


def test_a_model_of_an_earlier_version_is_read(make_model, tmp_path):
  model = make_model(sliding_window=5, global_every=2, rotary_original_positions=64,
                     rotary_scaling_factor=8.0)
  save_model(tmp_path, model)
  config = json.loads((tmp_path / 'config.json').read_text())
  for old, new in (
      ('window', 'sliding_window'), ('rotary_factor', 'rotary_scaling_factor'),
      ('rotary_original', 'rotary_original_positions'), ('rotary_low', 'rotary_low_freq_factor'),
      ('rotary_high', 'rotary_high_freq_factor')):
    config['decoder'][old] = config['decoder'].pop(new)
  (tmp_path / 'config.json').write_text(json.dumps(config))
  assert load_orbax_model(tmp_path, model.mesh).config == model.config


def test_saving_replaces_what_was_there(make_model, tmp_path):
  save_model(tmp_path / 'saved', make_model(layers=1))
  model = make_model()
  save_model(tmp_path / 'saved', model)
  assert load_orbax_model(tmp_path / 'saved', model.mesh).config.layers == 2
  assert [path.name for path in tmp_path.iterdir()] == ['saved']


def _without_variables(folder):
  for file in (folder / 'variables').rglob('*'):
    if file.is_file():
      file.unlink()


def _of_a_later_format(folder):
  config = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**config, 'format': 99}))


@pytest.mark.parametrize('damage', [
  _without_variables,
  _of_a_later_format,
  lambda folder: (folder / 'config.json').unlink(),
  lambda folder: (folder / 'config.json').write_text('{"format": 1, "decoder": {}}'),
  lambda folder: (folder / 'config.json').write_text('half'),
  lambda folder: (folder / 'tokenizer.json').write_text('{'),
])
def test_a_broken_model_is_named(make_model, damage, tmp_path):
  model = make_model()
  save_model(tmp_path / 'saved', model)
  damage(tmp_path / 'saved')
  with pytest.raises(UserError, match='saved') as error:
    load_orbax_model(tmp_path / 'saved', model.mesh)
  assert '\n' not in str(error.value)


def test_a_run_that_has_not_ended_says_so(make_model, tmp_path):
  (tmp_path / 'steps').mkdir()
  with pytest.raises(UserError, match='is not finished'):
    load_orbax_model(tmp_path, make_model().mesh)


@pytest.mark.parametrize(('field', 'value', 'message'), [
  ('layers', 'x', 'layers must be of type int'), ('heads', 2.5, 'heads must be of type int'),
  ('norm_eps', float('nan'), 'norm_eps must be a finite number'),
  ('rotary_base', 10**400, 'rotary_base must be a finite number'),
  ('norm', 'group', "norm must be 'layer' or 'rms', not 'group'"),
  ('rotary_divisors', [1, -1, 1, 1], 'rotary_divisors must be positive numbers'),
  ('vocab_size', -1, 'vocab_size must be positive'),
  ('adapter', {'kind': 'lora', 'rank': 0}, 'LoraConfig.rank must be between'),
  ('adapter', {'kind': 'lara'}, "unknown kind of adapter 'lara'"),
  ('vocab_size', 10**12, 'cannot be read'), ('unknown', 1, 'unexpected keyword')])
def test_a_damaged_configuration_is_refused(make_model, tmp_path, field, value, message):
  model = make_model()
  save_model(tmp_path / 'saved', model)
  file = tmp_path / 'saved' / 'config.json'
  fields = json.loads(file.read_text())
  fields['decoder'][field] = value
  file.write_text(json.dumps(fields))
  with pytest.raises(UserError, match=message) as refused:
    load_orbax_model(tmp_path / 'saved', model.mesh)
  assert '\n' not in str(refused.value)
