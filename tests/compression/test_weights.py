"""Weights that become zero, and weights of few bits: laws, and what is on disk."""

import json

import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

import toolformer_jax as tf_jax
from toolformer_jax import CompressionConfig
from toolformer_jax.checkpoints.huggingface import load_directory
from toolformer_jax.compression.bits import round_by_gptq, save_rounded
from toolformer_jax.compression.block_params import kernels, with_blocks
from toolformer_jax.compression.calibration import calibration_rows
from toolformer_jax.compression.calibration_loss import sum_of_changes
from toolformer_jax.compression.gptq import fitted_scales, gptq
from toolformer_jax.compression.sparsity import mask_of, prune_by_gradient
from toolformer_jax.errors import UserError
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.int8 import group_scales, to_codes
from toolformer_jax.models.kernels import with_kernels
from toolformer_jax.runtime.paths import as_path

from ..taught_model import ANSWERS, teach
from .test_compress import GPT2, TEXTS, compressed, mesh


def sizes(config, path, changes):
  return abs(changes)


def blocks(model):
  """Yields the parameters of each block."""
  for layer in range(model.config.layers):
    yield jax.tree.map(lambda x, layer=layer: np.asarray(x[layer]),
                       model.variables['params']['blocks'])


def matrices(model):
  """Yields the kernels of all blocks as [inputs, outputs]."""
  for block in blocks(model):
    yield from kernels(block).values()


@pytest.mark.parametrize('sparsity', [0.25, 0.5, 0.9])
@pytest.mark.parametrize('scores', ['magnitude', 'wanda', 'gradient'])
def test_as_many_weights_are_zero_as_asked_for(make_model, tmp_path, sparsity, scores):
  model = make_model()
  found, result = compressed(model, tmp_path, sparsity=sparsity, weight_scores=scores)
  zeros = 0
  for before, after in zip(matrices(model), matrices(found), strict=True):
    kept = after != 0
    np.testing.assert_array_equal(after[kept], before[kept])
    by_output = scores != 'magnitude'
    shares = 1 - (kept.mean(0) if by_output else kept.mean())
    np.testing.assert_allclose(shares, sparsity, atol=0.5 / len(kept) if by_output else 1e-3)
    if not by_output:
      assert np.abs(before[kept]).min() >= np.abs(before[~kept]).max()
    zeros += (~kept).sum()
  assert result.parameters[1] - result.nonzero == zeros


@pytest.mark.parametrize('scores', ['magnitude', 'wanda', 'gradient'])
def test_two_of_four_neighbouring_inputs_are_left(make_model, tmp_path, scores):
  found, _ = compressed(make_model(), tmp_path, sparsity=0.5, pattern='2:4', weight_scores=scores)
  for kernel_IO in matrices(found):
    assert ((kernel_IO.T.reshape(-1, 4) != 0).sum(1) == 2).all()


def test_wanda_counts_how_large_inputs_are():
  rng = np.random.default_rng(0)
  inputs_XI = rng.normal(size=(200, 16)) * np.geomspace(0.1, 10, 16)
  kernel_IO = rng.normal(size=(16, 8))
  def error(scores):
    pruned = np.where(mask_of(scores, 0.5, 'unstructured', True), kernel_IO, 0)
    return np.square(inputs_XI @ (kernel_IO - pruned)).sum()
  norms_I = np.sqrt((inputs_XI**2).sum(0))
  assert error(np.abs(kernel_IO) * norms_I[:, None]) < 0.5 * error(np.abs(kernel_IO))


def mean_loss(model, rows_RT):
  """Returns the mean loss of the tokens of rows, each given those before it."""
  targets = [ScoreRequest((), tuple(row_T[1:].tolist()), tuple(range(len(row_T) - 1)))
             for row_T in rows_RT]
  return -np.mean([logprobs.mean(dtype=np.float64) for logprobs in score(model, targets)])


@pytest.mark.parametrize('kind', [{}, GPT2], ids=['llama', 'gpt2'])
def test_gradient_scores_are_weights_times_gradients(make_model, kind):
  model = make_model(**kind)
  rows_RT = calibration_rows(TEXTS, model.tokenizer, 3, 64)
  paths = list(kernels(next(blocks(model))))
  sums = sum_of_changes(model, rows_RT, paths, sizes)
  expected = dict.fromkeys(paths, 0)
  for row_T in rows_RT:
    def loss(params, row_T=row_T):
      logits_1TV, _ = model.decoder.apply({'params': params}, row_T[None, :-1])
      return optax.softmax_cross_entropy_with_integer_labels(logits_1TV[0], row_T[1:]).mean()
    gradients = jax.grad(loss)(model.variables['params'])['blocks']
    for path in paths:
      part, name = path.split('/')
      weights = model.variables['params']['blocks'][part][name]['kernel']
      expected[path] += np.abs(weights * gradients[part][name]['kernel'])
  for path, found in sums.items():
    np.testing.assert_allclose(found / expected[path].max(), expected[path] / expected[path].max(),
                               atol=1e-3)


def test_changes_are_summed_on_the_devices(make_model, monkeypatch):
  """Whatever the number of rows, each sum is copied to the host once."""
  model = make_model()
  rows_RT = calibration_rows(TEXTS, model.tokenizer, 5, 64)
  copied = []
  as_array = np.asarray
  def counted(x, *arguments, **settings):
    copied.extend([x] if isinstance(x, jax.Array) else [])
    return as_array(x, *arguments, **settings)
  monkeypatch.setattr(np, 'asarray', counted)
  sum_of_changes(model, rows_RT, ['mlp/down', 'mlp/up'], sizes)
  assert len(copied) == 2


def test_weights_of_low_gradient_scores_matter_least(make_model, tmp_path):
  """In a model that has learned something: elsewhere the loss may as well fall."""
  model = teach(make_model(), as_path(tmp_path))
  rows_RT = np.stack([model.tokenizer.encode(f'{word} is [Up({word}) -> {answer}] {answer}.')
                      for word, answer in ANSWERS.items()])
  paths = list(kernels(next(blocks(model))))
  scores = sum_of_changes(model, rows_RT, paths, sizes)
  def without(sign):
    """Returns the loss without the weights of the lowest or of the highest scores."""
    return mean_loss(with_blocks(model, [with_kernels(block, {
        path: np.where(mask_of(sign * scores[path][layer].reshape(kernel_IO.shape), 0.3,
                               'unstructured', True), kernel_IO, 0)
        for path, kernel_IO in kernels(block).items()})
        for layer, block in enumerate(blocks(model))]), rows_RT)
  pruned = mean_loss(prune_by_gradient(model, rows_RT, 0.3, 'unstructured'), rows_RT)
  assert pruned == without(1)
  assert abs(pruned - mean_loss(model, rows_RT)) < 0.1 * (without(-1) - mean_loss(model, rows_RT))


@pytest.mark.parametrize(('bits', 'size', 'bound'), [(8, 96, 1 / 254), (4, 32, 1 / 8)])
def test_rounding_is_off_by_half_a_step_at_most(bits, size, bound):
  """Of the largest weight of a group; in 4 bits, at the end without a code 8, by a whole one."""
  groups_XG = np.random.default_rng(1).normal(size=(50, size)).astype(np.float32)
  scales_X1 = group_scales(groups_XG, bits)[:, None]
  codes = to_codes(groups_XG, scales_X1, bits)
  error = np.abs(codes * scales_X1.astype(np.float32) - groups_XG).max(-1)
  assert (error <= np.abs(groups_XG).max(-1) * bound * 1.01).all() and error.max() > 0
  assert not to_codes(np.zeros((1, size), np.float32), np.zeros((1, 1), np.float32), bits).any()


@pytest.mark.parametrize(('bits', 'group'), [(4, 32), (8, 64)])
def test_gptq_changes_a_product_less_than_rounding(bits, group):
  rng = np.random.default_rng(2)
  inputs_XI = rng.normal(size=(500, 64)) @ rng.normal(size=(64, 64))  # correlated
  kernel_IO = rng.normal(size=(64, 24)).astype(np.float32)
  rounded_IO, scales_GO = gptq(kernel_IO, inputs_XI.T @ inputs_XI, bits, group)
  def error(other_IO):
    return np.square(inputs_XI @ (other_IO - kernel_IO)).sum()
  scales_OG = group_scales(kernel_IO.T.reshape(24, -1, group), bits)
  plain_OI = to_codes(kernel_IO.T, scales_OG.repeat(group, 1), bits)
  assert error(rounded_IO) < 0.6 * error((plain_OI * scales_OG.repeat(group, 1)).T)
  # Every weight is a code times its scale.
  codes_IO = to_codes(rounded_IO, scales_GO.repeat(group, 0), bits)
  np.testing.assert_array_equal(
      codes_IO * scales_GO.repeat(group, 0).astype(np.float32), rounded_IO)


def test_fitted_scales_change_no_product_more_than_those_of_the_largest_weight():
  rng = np.random.default_rng(4)
  kernel_IO = rng.normal(size=(64, 40)).astype(np.float32)
  squares_I = np.exp(rng.normal(size=64, scale=3))  # some inputs are much larger
  def errors_GO(scales_GO):
    expanded_IO = scales_GO.repeat(32, 0)
    rounded_IO = to_codes(kernel_IO, expanded_IO, 4) * expanded_IO.astype(np.float32)
    return (squares_I[:, None] * (rounded_IO - kernel_IO)**2).reshape(2, 32, 40).sum(1)
  plain_GO = group_scales(kernel_IO.reshape(2, 32, 40), 4, axis=1)
  fitted_GO = fitted_scales(kernel_IO, squares_I, 4, 32)
  assert fitted_GO.dtype == plain_GO.dtype == np.float16
  assert (errors_GO(fitted_GO) <= errors_GO(plain_GO) * (1 + 1e-5)).all()
  assert errors_GO(fitted_GO).sum() < 0.8 * errors_GO(plain_GO).sum()


def test_gptq_of_inputs_without_correlation_is_rounding():
  kernel_IO = np.random.default_rng(3).normal(size=(64, 8)).astype(np.float32)
  rounded_IO, scales_GO = gptq(kernel_IO, np.eye(64), 4, 32)
  expanded = scales_GO.repeat(32, 0)
  np.testing.assert_array_equal(to_codes(kernel_IO, expanded, 4) * expanded.astype(np.float32),
                                rounded_IO)


@pytest.mark.parametrize('kind', [{}, GPT2, {'tied_head': False}], ids=['llama', 'gpt2', 'untied'])
@pytest.mark.parametrize('bits', ['int8', 'int4'])
def test_weights_on_disk_are_the_nearest_codes(make_model, tmp_path, kind, bits):
  """And they are the same, bit by bit, if they are rounded again."""
  model = make_model(**kind)
  found, result = compressed(model, tmp_path / 'a', bits=bits, rounding='nearest')
  levels, bound = {'int8': (255, 1 / 250), 'int4': (16, 1 / 7)}[bits]
  for before, after in zip(matrices(model), matrices(found), strict=True):
    size = len(after) if bits == 'int8' else 32
    for groups, old in zip(after.T.reshape(-1, size), before.T.reshape(-1, size), strict=True):
      assert len(np.unique(groups)) <= levels
      assert np.abs(groups - old).max() <= bound * np.abs(old).max()
  stored = load_file(tmp_path / 'a' / 'model.safetensors')
  packed = 0.5 if bits == 'int4' else 1
  names = [name for name in stored if name.endswith('.codes')]
  of_blocks = [name for name in names if '.layers.' in name or '.h.' in name]
  assert sum(stored[name].nbytes for name in of_blocks) == packed * sum(
      kernel.size for kernel in matrices(model))
  assert result.weight_bytes < 4 * result.parameters[0] * (0.55 if bits == 'int8' else 0.45)
  again, _ = compressed(found, tmp_path / 'b', bits=bits, rounding='nearest')
  jax.tree.map(np.testing.assert_array_equal, again.variables, found.variables)


@pytest.mark.parametrize('kind', [{}, GPT2], ids=['llama', 'gpt2'])
@pytest.mark.parametrize('bits', [(8, 8), (4, 4), (4, 8)])
def test_weights_on_disk_are_those_that_gptq_has_rounded(make_model, tmp_path, kind, bits):
  """Whatever order of axes and whatever joint tensors the format has."""
  model = make_model(**kind)
  rows_RT = calibration_rows(TEXTS, model.tokenizer, 4, 64)
  rounded, rounding = round_by_gptq(model, rows_RT, bits, 32)
  save_rounded(as_path(tmp_path), rounded, rounding)
  found = load_directory(tmp_path, mesh()).variables['params']['blocks']
  before = model.variables['params']['blocks']
  jax.tree.map(np.testing.assert_array_equal, found, rounded.variables['params']['blocks'])
  assert (np.asarray(found['mlp']['up']['kernel']) != before['mlp']['up']['kernel']).any()


@pytest.mark.parametrize('size', [32, 64])
def test_all_matrices_of_blocks_have_the_bits_that_the_folder_says(make_model, tmp_path, size):
  model = make_model(embed_dim=64, head_dim=16, rotary_dim=16, mlp_dim=128)
  compressed(model, tmp_path, bits='int4', rounding='nearest', group_size=size)
  config = json.loads((tmp_path / 'config.json').read_text())['quantization_config']
  assert config['bits'] == 4 and config['group_size'] == size
  stored = load_file(tmp_path / 'model.safetensors')
  codes = [name for name in stored if name.endswith('.codes') and '.layers.' in name]
  assert len(codes) == 2 * 7 and {stored[name].dtype.name for name in codes} == {'uint8'}
  for name in codes:
    inputs = 2 * stored[name].shape[1]
    assert stored[name.replace('.codes', '.scales')].shape[1] == inputs // size


@pytest.mark.parametrize(('method', 'message'), [
  ({'quant_method': 'awq'}, "of the method 'awq', which is not supported"),
  ('x', "of the method 'x'")])
def test_weights_that_others_packed_are_refused(make_model, tmp_path, method, message):
  path = tf_jax.export(make_model(), output_dir=tmp_path / 'model')
  config = json.loads((path / 'config.json').read_text())
  (path / 'config.json').write_text(json.dumps(config | {'quantization_config': method}))
  with pytest.raises(UserError, match=message):
    load_directory(path, mesh())


@pytest.mark.parametrize(('part', 'change', 'message'), [
  ('.scales', None, 'codes without scales'),
  ('.scales', lambda x: x[:, :0], 'do not fit'), ('.scales', lambda x: x[:5], 'do not fit'),
  ('.codes', lambda x: x.astype(np.int32), 'codes without scales, or of another type'),
  ('.codes', lambda x: x[:, :8], 'has the shape')])
def test_damaged_packed_weights_are_named(make_model, tmp_path, part, change, message):
  compressed(make_model(), tmp_path, bits='int4', rounding='nearest')
  file = tmp_path / 'model.safetensors'
  tensors, name = load_file(file), f'model.layers.1.mlp.up_proj.weight{part}'
  tensor = tensors.pop(name)
  save_file(tensors | ({name: np.ascontiguousarray(change(tensor))} if change else {}), file)
  with pytest.raises(UserError, match=message):
    load_directory(tmp_path, mesh())


@pytest.mark.parametrize('dtype', ['float32', 'int4'])
@pytest.mark.parametrize('kind', [{}, GPT2], ids=['llama', 'gpt2'])
def test_packed_weights_without_what_says_so_are_named(make_model, tmp_path, kind, dtype):
  compressed(make_model(**kind), tmp_path, bits='int4', rounding='nearest')
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config.pop('quantization_config')
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with pytest.raises(UserError, match='packed integers.* config.json lacks quantization_config.*;'
                                      ' copy the config.json that was written with them') as error:
    load_directory(tmp_path, mesh(), dtype)
  assert str(tmp_path) in str(error.value)


def test_a_packed_model_is_a_checkpoint_like_others(make_model, tmp_path):
  """It is compressed again, and exported as what others read."""
  settings = CompressionConfig(bits='int8', rounding='nearest')
  path = tf_jax.compress(make_model(), output_dir=tmp_path / 'packed', config=settings).path
  out = tf_jax.export(load_directory(path, mesh()), output_dir=tmp_path / 'plain')
  jax.tree.map(np.testing.assert_array_equal, load_directory(out, mesh()).variables,
               load_directory(path, mesh()).variables)
