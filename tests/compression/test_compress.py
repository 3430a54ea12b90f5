"""Compressed models: nothing asked is nothing changed, and what did nothing goes first."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import toolformer_jax as tf_jax
from toolformer_jax import CompressionConfig
from toolformer_jax.checkpoints.huggingface import load_directory, save_directory
from toolformer_jax.compression.layers import keep_layers, most_influential
from toolformer_jax.compression.structure import unit_scores
from toolformer_jax.errors import UserError
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.adapter_config import LoraConfig, PrefixConfig
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.sharding import make_mesh

GPT2 = dict(positions='learned', rotary_dim=0, norm='layer', gated_mlp=False, kv_heads=4,
            activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True)
GEMMA = dict(qk_norm=True, activation='gelu_tanh', sandwich_norm=True, norm_offset=True,
             scaled_embedding=True, sliding_window=5, global_every=2, layers=4)
TEXTS = [f'The number {i} is less than {i + 1}, as everybody knows.' for i in range(40)]
REQUEST = [ScoreRequest((), tuple(range(40, 60)), tuple(range(20)))]


def mesh():
  return make_mesh(devices=jax.devices()[:1])


def compressed(model, folder, texts=TEXTS, **settings):
  """Returns the compressed model as it is loaded again, and the result."""
  config = CompressionConfig(calibration_rows=4, calibration_tokens=64, **settings)
  result = tf_jax.compress(model, texts, output_dir=folder, config=config)
  return load_directory(result.path, mesh()), result


def changed(model, change):
  """Returns the model whose parameters a function has changed, as arrays of numpy."""
  params = jax.tree.map(np.array, model.variables['params'])
  change(params['blocks'])
  return LanguageModel.from_variables(model.config, {'params': params}, model.tokenizer, mesh())


@pytest.mark.parametrize('kind', [{}, GPT2], ids=['llama', 'gpt2'])
def test_nothing_asked_is_nothing_changed(make_model, tmp_path, kind):
  model = make_model(**kind)
  found, result = compressed(model, tmp_path, texts=None)
  assert found.config == model.config and result.parameters[0] == result.parameters[1]
  jax.tree.map(np.testing.assert_array_equal, found.variables, model.variables)


@pytest.mark.parametrize('settings', [
  {'layers': 2}, {'kv_heads': 2, 'mlp_dim': 64}, {'keep_layers': (0, 1)}])
def test_all_that_there_is_can_be_kept(make_model, tmp_path, settings):
  model = make_model()
  found, _ = compressed(model, tmp_path, **settings)
  jax.tree.map(np.testing.assert_array_equal, found.variables, model.variables)


def test_a_layer_that_does_nothing_goes_first(make_model, tmp_path):
  """Its influence is zero, and without it the model is the same."""
  def idle(blocks):
    blocks['attention']['out']['kernel'][1] = 0
    blocks['mlp']['down']['kernel'][1] = 0
  model = changed(make_model(layers=4), idle)
  found, result = compressed(model, tmp_path, layers=3)
  assert result.kept_layers == (0, 2, 3) and abs(result.block_influences[1]) < 1e-6
  assert min(result.block_influences[i] for i in (0, 2, 3)) > 1e-4
  np.testing.assert_allclose(score(found, REQUEST), score(model, REQUEST), atol=1e-5)


def test_layers_are_ranked_by_influence():
  assert most_influential([0.3, 0.1, 0.2, 0.1, 0.4], 3) == (0, 2, 4)
  assert most_influential([0.1, 0.1], 1) == (0,)


def test_local_and_global_layers_stay_what_they_are(make_model):
  model = make_model(**GEMMA)
  assert keep_layers(model, (0, 1)).config.layers == 2
  assert keep_layers(model, (0, 3)).config.layers == 2  # local, global
  with pytest.raises(UserError, match='layer 2 cannot stay what it is'):
    keep_layers(model, (0, 2, 3))


@pytest.mark.parametrize(('scores', 'kind'), [
  ('magnitude', {}), ('activation', dict(qkv_bias=True, out_bias=True, mlp_bias=True)),
  ('taylor', {})], ids=['magnitude', 'activation, biases', 'taylor'])
def test_heads_and_channels_that_do_nothing_go_first(make_model, tmp_path, scores, kind):
  """Others in each layer: what is left computes the same."""
  heads, channels = {0: 1, 1: 0}, {0: range(0, 64, 2), 1: range(32)}
  def idle(blocks):
    for layer, head in heads.items():  # a key/value head with its two query heads
      at = slice(2 * head, 2 * head + 2)
      blocks['attention']['out']['kernel'][layer, at] = 0
      blocks['mlp']['down']['kernel'][layer, list(channels[layer])] = 0
      for name, where in (('query', at), ('key', head), ('value', head)):
        blocks['attention'][name]['kernel'][layer, :, where] *= 0.1
      for name in ('up', 'gate'):
        blocks['mlp'][name]['kernel'][layer][:, list(channels[layer])] *= 0.1
  model = changed(make_model(**kind), idle)
  found, result = compressed(model, tmp_path, kv_heads=1, mlp_dim=32, unit_scores=scores)
  assert (found.config.heads, found.config.kv_heads, found.config.mlp_dim) == (2, 1, 32)
  assert result.parameters[1] < result.parameters[0]
  np.testing.assert_allclose(score(found, REQUEST), score(model, REQUEST), atol=1e-5)


def test_first_order_scores_are_the_change_of_the_loss(make_model):
  """Of a channel that is scaled by a little: the derivative of the loss by its scale."""
  model, step = make_model(), 1e-2
  row_T = np.array([256, *b'Two and two are four, and four and four are eight.'], np.int32)
  ids = tuple(row_T[1:].tolist())
  targets = [ScoreRequest((), ids, tuple(range(len(ids))))]
  row_T[0] = model.tokenizer.start_id
  heads_LK, channels_LF = unit_scores(model, 'taylor', row_T[None])
  def loss(part, name, layer, unit, scale):
    def change(blocks):
      blocks[part][name]['kernel'][layer, unit] *= scale
    return -score(changed(model, change), targets)[0].mean(dtype=np.float64)
  def slope(*unit):
    return abs(loss(*unit, 1 + step) - loss(*unit, 1 - step)) / (2 * step)
  largest = int(channels_LF[1].argmax())
  np.testing.assert_allclose(channels_LF[1, largest], slope('mlp', 'down', 1, largest), rtol=0.05)
  np.testing.assert_allclose(heads_LK[0, 1], slope('attention', 'out', 0, slice(2, 4)), rtol=0.05)


def test_rows_that_the_texts_do_not_fill_are_told(make_model, tmp_path, caplog):
  few = TEXTS[:3]
  _, result = compressed(make_model(), tmp_path / 'few', texts=few, layers=1)
  tokens = sum(len(text) + 1 for text in few)  # a token for each byte but merges, and the start
  assert result.calibration_rows == 2 and tokens // 64 == 2
  message, = (one.getMessage() for one in caplog.records if one.levelname == 'WARNING')
  assert message == ('the calibration texts fill only 2 rows of 64 tokens, fewer than '
                     'CompressionConfig.calibration_rows, 4')
  record = json.loads((tmp_path / 'few' / 'compression.json').read_text())
  assert record['calibration_rows'] == 2 and record['settings']['calibration_rows'] == 4
  caplog.clear()
  assert compressed(make_model(), tmp_path / 'all', layers=1)[1].calibration_rows == 4
  assert compressed(make_model(), tmp_path / 'none', keep_layers=(0,))[1].calibration_rows == 0
  assert all(one.levelname == 'INFO' for one in caplog.records)


@pytest.mark.filterwarnings('error::RuntimeWarning')
@pytest.mark.parametrize('settings', [
  {}, dict(bits='int4'), dict(bits='int8', rounding='nearest'), dict(sparsity=0.5)])
@pytest.mark.parametrize('number', [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(make_model, tmp_path, settings, number):
  def damage(blocks):
    blocks['mlp']['down']['kernel'][1, 3, 5] = number
  with pytest.raises(UserError, match='blocks/mlp/down/kernel of the model has numbers that are'):
    compressed(changed(make_model(), damage), tmp_path / 'out', **settings)
  assert not (tmp_path / 'out').exists()


@pytest.mark.filterwarnings('error::RuntimeWarning')
@pytest.mark.parametrize('settings', [
  dict(bits='int4', rounding='nearest'), dict(bits='int4'),
  dict(bits='mixed', weight_bytes=30_000)])
@pytest.mark.parametrize('number', [524_100.0, -1e6])
def test_weights_too_large_for_four_bits_are_refused(make_model, tmp_path, settings, number):
  def grow(size):
    def change(blocks):
      blocks['attention']['out']['kernel'][0, 0, 0, 0] = size
    return changed(make_model(), change)
  with pytest.raises(UserError, match='the matrices attention/out: a weight of .* too large for 4'):
    compressed(grow(number), tmp_path / 'out', **settings)
  assert not (tmp_path / 'out').exists()
  found, _ = compressed(grow(524_000.0), tmp_path / 'most', bits='int4', rounding='nearest')
  kernel = found.variables['params']['blocks']['attention']['out']['kernel']
  np.testing.assert_allclose(kernel[0, 0, 0, 0], 524_000, rtol=1e-3)
  save_directory(tmp_path / 'large', grow(number))
  with pytest.raises(UserError, match='the tensor .*o_proj.weight: a weight of .* take 8 bits'):
    load_directory(tmp_path / 'large', mesh(), 'int4')


@pytest.mark.filterwarnings('error::RuntimeWarning')
@pytest.mark.parametrize('settings', [
  dict(layers=1), dict(bits='int4'), dict(sparsity=0.5), dict(mlp_dim=32, unit_scores='taylor'),
  dict(bits='mixed', weight_bytes=30_000, rounding='nearest')])
def test_texts_that_a_model_makes_no_numbers_of_are_refused(make_model, tmp_path, settings):
  def grow(blocks):
    for name in ('up', 'gate', 'down'):
      blocks['mlp'][name]['kernel'][:] *= 1e14 if settings.get('bits') is None else 3e5
    if settings.get('bits'):
      blocks['mlp_norm']['scale'][:] = 1e30
  with pytest.raises(UserError, match='makes numbers that are not finite .* of the calibration'):
    compressed(changed(make_model(), grow), tmp_path / 'out', **settings)
  assert not (tmp_path / 'out').exists()


def test_the_folder_says_what_was_removed(make_model, tmp_path):
  _, result = compressed(make_model(layers=3), tmp_path, keep_layers=(0, 2))
  record = json.loads((tmp_path / 'compression.json').read_text())
  assert record['kept_layers'] == [0, 2] and record['settings']['keep_layers'] == [0, 2]
  assert record['weight_bytes'] == (tmp_path / 'model.safetensors').stat().st_size
  assert record['parameters'] == list(result.parameters)


@pytest.mark.parametrize(('kind', 'settings', 'message'), [
  ({}, dict(keep_layers=(0, 2)), 'the model has the layers 0 to 1'),
  ({}, dict(layers=3), 'layers is 3; keep at most the 2 layers'),
  ({}, dict(mlp_dim=65), 'mlp_dim is 65; keep at most 64'),
  (GPT2, dict(kv_heads=1), 'no head of a gpt2 model can be removed'),
  ({'adapter': PrefixConfig(num_virtual_tokens=2)}, {}, 'a prefix adapter cannot be merged'),
  ({'max_positions': 63}, {'layers': 1}, 'at most 63, the positions')])
def test_what_the_model_lacks_is_refused(make_model, tmp_path, kind, settings, message):
  with pytest.raises(UserError, match=message):
    compressed(make_model(**kind), tmp_path / 'out', **settings)
  assert not (tmp_path / 'out').exists()


def test_an_adapter_is_merged_first(make_model, tmp_path):
  model = make_model(adapter=LoraConfig(rank=2))
  found, result = compressed(model, tmp_path / 'adapted', layers=1)
  expected, _ = compressed(merge_adapter(model), tmp_path / 'merged', layers=1)
  assert found.config.adapter is None and found.config.layers == 1
  jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)
  plain, _ = compressed(make_model(), tmp_path / 'plain', layers=1)
  assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, found.variables, plain.variables)))


@pytest.mark.parametrize('settings', [
  {'keep_layers': (0,)}, {'bits': 'int4'}, {'bits': 'int8', 'rounding': 'nearest'}])
def test_the_model_card_says_how_the_original_was_trained(make_model, tmp_path, settings):
  run = tmp_path / 'run'
  run.mkdir()
  (run / 'report.md').write_text('# Fine-tuning\n\nTrained 7 steps.\n')
  (run / 'run.json').write_text(json.dumps({'configuration': {'finetune': {'steps': 7}}}))
  model = dataclasses.replace(make_model(adapter=LoraConfig(rank=2)), source=str(run))
  compressed(model, tmp_path / 'small', **settings)
  assert 'Trained 7 steps.' in (tmp_path / 'small/README.md').read_text()


def test_texts_are_asked_for(make_model, tmp_path):
  with pytest.raises(UserError, match='need calibration texts'):
    compressed(make_model(), tmp_path, texts=None, layers=1)
  with pytest.raises(UserError, match='the calibration texts have 5 tokens, fewer than'):
    compressed(make_model(), tmp_path, texts=['Four'], layers=1)
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='exists already'):
    compressed(make_model(), tmp_path)


@pytest.mark.parametrize(('settings', 'message'), [
  (dict(layers=1, keep_layers=(0,)), 'not both'), (dict(keep_layers=(1, 0)), 'ascending order'),
  (dict(sparsity=1.0), 'between 0 and 0.99'), (dict(group_size=16), 'must be 32, 64 or 128'),
  (dict(pattern='2:4', sparsity=0.3), 'has the sparsity 0.5'), (dict(bits='int2'), "'int8'"),
  (dict(bits='int4', sparsity=0.5), 'would change weights that are zero')])
def test_wrong_settings_are_refused(settings, message):
  with pytest.raises(UserError, match=message):
    CompressionConfig(**settings)


def test_the_command(make_model, tmp_path, capsys):
  from toolformer_jax import cli
  save_directory(tmp_path / 'model', make_model(layers=3))
  corpus = tmp_path / 'texts.jsonl'
  corpus.write_text('\n'.join(json.dumps({'text': text}) for text in TEXTS))
  argv = ['compress', '--checkpoint', str(tmp_path / 'model'), '--output_dir',
          str(tmp_path / 'small'), '--gin.CompressionConfig.layers=2',
          '--gin.CompressionConfig.calibration_tokens=32']
  assert cli.main(argv) == 2
  with pytest.raises(UserError, match='give --corpus, or the argument `texts`') as refused:
    compressed(make_model(), tmp_path / 'small', texts=None, layers=1)
  assert capsys.readouterr().err == f'error: {refused.value}\n'
  code = cli.main([*argv, '--corpus', str(corpus)])
  out, err = capsys.readouterr()
  assert (code, out.strip()) == (0, str(tmp_path / 'small')), err
  assert load_directory(tmp_path / 'small', mesh()).config.layers == 2
