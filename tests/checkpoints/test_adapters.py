"""An adapter that does not fit its base, or is not supported, is an error of one line."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from toolformer_jax.checkpoints.adapters.load import load_adapter
from toolformer_jax.checkpoints.adapters.save import save_adapter
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.cli import main
from toolformer_jax.errors import UserError
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  BottleneckConfig,
  Ia3Config,
  LoraConfig,
  PrefixConfig,
)

WEIGHTS = 'adapter_model.safetensors'
LORA = LoraConfig(rank=2, target_modules=('query', 'down'))
ADAPTERS = (LORA, AdaLoraConfig(init_rank=2, target_rank=1), Ia3Config(),
            BottleneckConfig(reduction_factor=8.0), PrefixConfig(num_virtual_tokens=3))


def refused(base, folder, message):
  with pytest.raises(UserError, match=message) as error:
    load_adapter(base, str(folder))
  assert '\n' not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize('adapter', ADAPTERS, ids=lambda adapter: adapter.kind)
def test_the_settings_come_back_and_another_base_is_refused(make_model, tmp_path, adapter):
  save_adapter(tmp_path, make_model(adapter=adapter), 'org/base')
  assert load_adapter(make_model(), str(tmp_path)).config.adapter == adapter
  refused(make_model(embed_dim=48, head_dim=12, kv_heads=1, mlp_dim=96), tmp_path,
          'for this model')
  refused(make_model(adapter=adapter), tmp_path, 'has an adapter of its own')


@pytest.mark.parametrize(('field', 'value', 'message'), [
  ('use_dora', True, 'use_dora = True'), ('bias', 'all', "bias = 'all'"),
  ('modules_to_save', ['lm_head'], 'modules_to_save'), ('peft_type', 'LOHA', 'the type LOHA'),
  ('lora_alpha', None, 'is not a usable adapter'), ('r', 0, 'LoraConfig.rank must be'),
  ('alpha_pattern', {'(q|k)_proj': 3}, 'regular expression'), ('peft_type', 'IA3', 'lora_A')])
def test_settings_that_are_not_supported_are_refused(make_model, tmp_path, field, value, message):
  save_adapter(tmp_path, make_model(adapter=LORA), 'org/base')
  file = tmp_path / 'adapter_config.json'
  file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
  refused(make_model(), tmp_path, message)


def test_tensors_that_do_not_fit_are_refused(make_model, tmp_path):
  base, name = make_model(), 'base_model.model.model.layers.1.self_attn.q_proj.lora_{}.weight'
  save_adapter(tmp_path, make_model(adapter=LORA), 'org/base')
  tensors = safetensors.numpy.load_file(tmp_path / WEIGHTS)
  def write(changes, without=''):
    kept = {key: one for key, one in tensors.items() if key != without}
    safetensors.numpy.save_file(kept | changes, tmp_path / WEIGHTS)
  write({'base_model.model.lm_head.lora_A.weight': np.zeros((2, 32), np.float32)})
  refused(base, tmp_path, 'for lm_head, which is no linear layer of the blocks')
  write({}, without=name.format('B'))
  refused(base, tmp_path, 'the tensor lora_B of model.layers.1.self_attn.q_proj is missing')
  write({name.format('B'): np.zeros((31, 2), np.float32)})
  refused(base, tmp_path, r'has the shape \(31, 2\), but for this model it must be \(32, 2\)')
  (tmp_path / WEIGHTS).write_bytes(b'x' * 40)
  refused(base, tmp_path, 'not a complete safetensors file')
  (tmp_path / WEIGHTS).unlink()
  refused(base, tmp_path, 'save the adapter again as safetensors')


def test_what_is_no_adapter_is_refused(make_model, tmp_path):
  refused(make_model(), tmp_path / 'nothing', 'no such folder')
  refused(make_model(), tmp_path, 'is not an adapter: it has no adapter_config.json')


def test_a_command_merges_an_adapter_of_a_folder(make_model, tmp_path):
  base = make_model()
  tuned = make_model(adapter=LORA)
  tuned = dataclasses.replace(tuned, variables={**tuned.variables, **base.variables})
  save_directory(tmp_path / 'base', base)
  save_adapter(tmp_path / 'adapter', tuned, 'org/base')
  options = ['--checkpoint', str(tmp_path / 'base'), '--adapter', str(tmp_path / 'adapter'),
             '--output_dir', str(tmp_path / 'merged')]
  assert main(['export', *options]) == 0
  merged = load_pretrained(str(tmp_path / 'merged'), mesh=base.mesh)
  assert merged.config == base.config
  request = [ScoreRequest((), tuple(range(40, 70)), tuple(range(30)))]
  np.testing.assert_allclose(score(merged, request)[0], score(tuned, request)[0], atol=1e-5)


def test_an_option_that_names_no_adapter_is_refused_at_once(capsys, tmp_path):
  options = ['--checkpoint', 'smollm2-135m', '--adapter', str(tmp_path), '--prompt', 'a',
             '--tools', 'calculator']
  assert main(['generate', *options]) == 2
  assert 'is not an adapter: it has no adapter_config.json' in capsys.readouterr().err
