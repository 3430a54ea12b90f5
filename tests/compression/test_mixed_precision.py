"""Layers of 4 and of 8 bits under a budget of bytes."""

import json

import jax
import numpy as np
import pytest

from toolformer_jax import CompressionConfig
from toolformer_jax.checkpoints import huggingface
from toolformer_jax.checkpoints.huggingface import load_directory
from toolformer_jax.compression.bits import Rounding, packed_bytes, save_rounded
from toolformer_jax.compression.calibration import calibration_rows
from toolformer_jax.compression.calibration_loss import calibration_loss
from toolformer_jax.compression.mixed_precision import choose_bits, rounding_costs
from toolformer_jax.errors import UserError
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import as_path

from ..taught_model import ANSWERS, teach
from .test_compress import GPT2, TEXTS, changed, compressed, mesh

KINDS = {'llama': {}, 'gpt2': GPT2, 'untied': {'tied_head': False}}


def size(config, *bits):
  return packed_bytes(config, Rounding(bits, 32, []))


def written(folder):
  return sum(file.stat().st_size for file in folder.glob('*.safetensors'))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('bits', [(8, 8), (4, 8), (4, 4)])
@pytest.mark.parametrize('file_bytes', [2**32, 20_000])
def test_the_size_is_known_before_anything_is_written(make_model, tmp_path, monkeypatch, kind, bits,
                                                      file_bytes):
  monkeypatch.setattr(huggingface, '_FILE_BYTES', file_bytes)
  model, rounding = make_model(**KINDS[kind]), Rounding(bits, 32, [])
  save_rounded(as_path(tmp_path), model, rounding)
  assert packed_bytes(model.config, rounding) == written(tmp_path)
  assert (len(list(tmp_path.glob('*.safetensors'))) > 1) == (file_bytes == 20_000)
  assert load_directory(tmp_path, mesh()).config == model.config


@pytest.mark.parametrize('rounding', ['nearest', 'gptq'])
def test_files_fit_into_the_budget(make_model, tmp_path, rounding):
  """And no layer more could have 8 bits."""
  model = make_model(layers=4)
  largest, least = size(model.config, 8, 8, 8, 8), size(model.config, 4, 4, 4, 4)
  saving = largest - size(model.config, 4, 8, 8, 8)
  for number, budget in enumerate((largest - 1, (largest + least) // 2, least + 1)):
    folder = tmp_path / str(number)
    _, result = compressed(model, folder, bits='mixed', weight_bytes=budget, rounding=rounding)
    assert written(folder) == result.weight_bytes <= budget < result.weight_bytes + saving + 64
    record = json.loads((folder / 'compression.json').read_text())
    assert record['bits'] == list(result.bits) and set(result.bits) == {4, 8} - {number // 2 * 8}
    assert record['rounding_costs'] == list(result.rounding_costs) and len(result.bits) == 4


@pytest.mark.parametrize('rounding', ['nearest', 'gptq'])
@pytest.mark.parametrize('bits', ['int8', 'int4'])
def test_all_layers_are_alike_where_the_budget_says_so(make_model, tmp_path, bits, rounding):
  model = make_model()
  _, alike = compressed(model, tmp_path / 'a', bits=bits, rounding=rounding)
  _, found = compressed(model, tmp_path / 'b', bits='mixed', weight_bytes=alike.weight_bytes,
                        rounding=rounding)
  assert found.bits == alike.bits == ({'int8': 8, 'int4': 4}[bits],) * 2
  for name in ('model.safetensors', 'config.json'):
    assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()


def test_the_folder_says_which_layers_have_which_bits(make_model, tmp_path):
  model = make_model()
  save_rounded(as_path(tmp_path), model, Rounding((8, 4), 32, []))
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config['quantization_config'] == {
      'quant_method': 'toolformer_jax', 'bits': [8, 4], 'group_size': 32}
  found = load_directory(tmp_path, mesh()).variables['params']['blocks']['mlp']['up']['kernel']
  alike = {}
  for bits in (4, 8):
    save_rounded(as_path(tmp_path / str(bits)), model, Rounding((bits,) * 2, 32, []))
    alike[bits] = load_directory(tmp_path / str(bits), mesh()).variables['params']['blocks']
  for layer, bits in enumerate((8, 4)):
    np.testing.assert_array_equal(found[layer], alike[bits]['mlp']['up']['kernel'][layer])


@pytest.mark.parametrize('sensitive', [0, 1])
def test_a_sensitive_layer_keeps_eight_bits(make_model, tmp_path, sensitive):
  """The model has learned something with one layer; the other one does nothing."""
  taught = teach(make_model(layers=1), as_path(tmp_path))
  rows_RT = np.stack([taught.tokenizer.encode(f'{word} is [Up({word}) -> {answer}] {answer}.')
                      for word, answer in ANSWERS.items()])
  params = jax.tree.map(np.array, taught.variables['params'])
  params['blocks'] = jax.tree.map(lambda x: np.concatenate([x, x]), params['blocks'])
  for part, name in (('attention', 'out'), ('mlp', 'down')):
    params['blocks'][part][name]['kernel'][1 - sensitive] = 0
  model = LanguageModel.from_variables(taught.config.replace(layers=2), {'params': params},
                                       taught.tokenizer, mesh())
  costs = rounding_costs(model, rows_RT, 32)
  assert costs[sensitive] > 0.01 and costs[1 - sensitive] == 0
  bits = choose_bits(costs, model.config, 32, size(model.config, 4, 8))
  assert bits[sensitive] == 8 and bits[1 - sensitive] == 4


def test_a_cost_is_the_loss_of_a_model_with_one_rounded_layer(make_model, tmp_path):
  model = make_model()
  rows_RT = calibration_rows(TEXTS, model.tokenizer, 2, 64)
  save_rounded(as_path(tmp_path), model, Rounding((4, 4), 32, []))
  rounded = load_directory(tmp_path, mesh()).variables['params']['blocks']
  for layer, cost in enumerate(rounding_costs(model, rows_RT, 32)):
    def one_layer(blocks, layer=layer):
      for part in ('attention', 'mlp'):
        for name, product in blocks[part].items():
          product['kernel'][layer] = rounded[part][name]['kernel'][layer]
    after = calibration_loss(changed(model, one_layer), rows_RT)
    np.testing.assert_allclose(cost, after - calibration_loss(model, rows_RT), atol=1e-7)


def test_a_budget_that_nothing_fits_into_is_refused(make_model, tmp_path):
  model = make_model(layers=3)
  least = size(model.config.replace(layers=2, mlp_dim=32), 4, 4)
  with pytest.raises(UserError, match=f'weight_bytes is {least - 1}, and with 4 bits in every '
                                      f'layer the weights have {least} bytes'):
    compressed(model, tmp_path / 'a', bits='mixed', weight_bytes=least - 1, layers=2, mlp_dim=32)
  assert not (tmp_path / 'a').exists()
  _, result = compressed(model, tmp_path / 'b', bits='mixed', weight_bytes=least, layers=2,
                         mlp_dim=32)
  assert result.weight_bytes == least and result.bits == (4, 4)


@pytest.mark.parametrize('settings', [{'bits': 'mixed'}, {'weight_bytes': 1},
                                      {'bits': 'int8', 'weight_bytes': 10**9}])
def test_a_budget_belongs_to_mixed_bits(settings):
  with pytest.raises(UserError, match="'mixed' needs CompressionConfig.weight_bytes"):
    CompressionConfig(**settings)
