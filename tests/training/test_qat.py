"""Quantization-aware training trains the very model that is stored in few bits afterwards."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toolformer_jax as tf_jax
from toolformer_jax import CompressionConfig, LoraConfig, QatConfig, sharding
from toolformer_jax.checkpoints.huggingface import load_directory
from toolformer_jax.errors import UserError
from toolformer_jax.models.int8 import group_scales, to_codes
from toolformer_jax.planning.programs import program
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import evaluate_loss, finetune_examples
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.packing import pack
from toolformer_jax.training.recovery.quantization import rounded_params
from toolformer_jax.training.train_step import (
  abstract_train_state,
  init_train_state,
  make_train_step,
)

from .plain import plain_example

SETTINGS = FinetuneConfig(steps=20, batch_rows=8, row_tokens=32, learning_rate=1e-2, save_every=10,
                          qat=QatConfig())
TEXTS = [f'the number after {i} is {i + 1}.' for i in range(24)]
GPT2 = dict(positions='learned', rotary_dim=0, norm='layer', gated_mlp=False, kv_heads=4,
            activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True)


@pytest.fixture
def examples(tokenizer):
  return [plain_example(text, tokenizer) for text in TEXTS]


def _compressed(model, folder, qat):
  """Returns the model in few bits, as it is loaded again."""
  config = CompressionConfig(bits=qat.bits, group_size=qat.group_size, rounding='nearest')
  path = tf_jax.compress(model, output_dir=folder, config=config).path
  return load_directory(path, sharding.make_mesh(devices=jax.devices()[:1]))


@pytest.mark.parametrize('bits', [4, 8])
def test_codes_and_scales_are_the_same_in_numpy_and_jax(bits):
  rng = np.random.default_rng(0)
  sizes = np.geomspace(1e-9, 1e3, 500, dtype=np.float32)[:, None]  # some scales are subnormal
  groups_XG = rng.normal(size=(500, 32)).astype(np.float32) * sizes
  groups_XG[7] = 0
  groups_XG[8] = np.tile([1.0, -1.0], 16)  # the first of the largest has the last code
  def rounded(groups_XG):
    scales_X1 = group_scales(groups_XG, bits)[:, None]
    codes = to_codes(groups_XG, scales_X1, bits)
    return scales_X1, codes, codes * scales_X1.astype(np.float32)
  by_numpy = rounded(groups_XG)
  for found, wanted in zip(jax.jit(rounded)(groups_XG), by_numpy, strict=True):
    assert isinstance(found, jax.Array) and found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
  along = group_scales(jnp.asarray(groups_XG.T), bits, axis=0)
  np.testing.assert_array_equal(along, by_numpy[0][:, 0])


@pytest.mark.parametrize('kind', [{}, GPT2, {'tied_head': False}], ids=['llama', 'gpt2', 'untied'])
@pytest.mark.parametrize('bits', ['int8', 'int4'])
def test_the_rounded_weights_are_those_that_compress_stores(make_model, tmp_path, kind, bits):
  model, qat = make_model(**kind), QatConfig(bits=bits)
  params = jax.jit(rounded_params, static_argnums=1)(model.variables['params'], qat)
  stored = _compressed(model, tmp_path, qat).variables['params']
  jax.tree.map(np.testing.assert_array_equal, params, stored)
  again = jax.jit(rounded_params, static_argnums=1)(params, qat)
  jax.tree.map(np.testing.assert_array_equal, params, again)


def test_gradients_of_rounded_weights_go_to_those_as_they_are(make_model, examples, tokenizer):
  model = make_model()
  rows = pack(examples, tokenizer, 32, True)
  settings = dataclasses.replace(SETTINGS, max_grad_norm=1e6, beta1=0.0)
  optimizer = make_optimizer(settings)
  abstract = abstract_train_state(model.decoder, 'params', optimizer, model.mesh)
  before = jax.tree.map(np.array, model.variables['params'])
  rounded = jax.jit(rounded_params, static_argnums=1)(before, settings.qat)
  def loss(params):
    return next_token_loss(model.decoder, {'params': params}, rows).objective
  expected, wanted = jax.jit(jax.value_and_grad(loss))(rounded)
  weights = rows.loss_weights_RT.sum()
  state = init_train_state(abstract, model.variables['params'], optimizer)
  step = make_train_step(model.decoder, 'params', optimizer, abstract, settings)
  after, metrics = step({}, state, jax.tree.map(model.put_batch, rows))
  assert float(metrics['loss']) == pytest.approx(float(expected) / weights, rel=1e-5)
  (adam,) = [inner for inner in after.opt_state[1] if hasattr(inner, 'mu')]
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other / weights, rtol=1e-4,
                                                             atol=1e-6), adam.mu, wanted)
  # Without clipping, Adam's first step has the size of the rate, from where the weight was.
  kernel = before['blocks']['mlp']['up']['kernel']
  moved = np.abs(after.params['blocks']['mlp']['up']['kernel'] - kernel)
  assert np.median(moved) == pytest.approx(SETTINGS.learning_rate / 2, rel=1e-2)


def _run(model, examples, settings, folder, dev=()):
  return finetune_examples(model=model, examples=examples, config=settings, output_dir=folder,
                           depends_on={}, dev_examples=dev)


@pytest.mark.parametrize('qat', [QatConfig(), QatConfig(bits='int8')], ids=lambda qat: qat.bits)
def test_the_compressed_model_has_the_loss_of_the_training(make_model, examples, qat, tmp_path):
  settings = dataclasses.replace(SETTINGS, qat=qat)
  trained = _run(make_model(), examples, settings, tmp_path / 'run', dev=examples[:9])
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  measured = [json.loads(line)['dev_loss'] for line in lines if 'dev_loss' in line]
  small = _compressed(trained, tmp_path / 'small', qat)
  assert evaluate_loss(small, examples[:9], settings) == pytest.approx(min(measured), rel=1e-5)
  # The weights themselves are no codes: they are what moves between steps.
  up = trained.variables['params']['blocks']['mlp']['up']['kernel']
  assert (np.asarray(up) != small.variables['params']['blocks']['mlp']['up']['kernel']).mean() > 0.5


def test_a_rounded_model_is_better_after_it_than_after_plain_training(make_model, examples,
                                                                      tmp_path):
  plain = dataclasses.replace(SETTINGS, qat=None, steps=100, save_every=1000)
  begin = jax.tree.map(np.array, _run(make_model(), examples, plain, tmp_path / 'begin').variables)
  def loss_when_rounded(qat):
    settings = dataclasses.replace(plain, steps=60, learning_rate=3e-3, qat=qat)
    model = dataclasses.replace(make_model(), variables=jax.tree.map(jnp.array, begin))
    trained = _run(model, examples, settings, tmp_path / f'{qat}')
    return evaluate_loss(_compressed(trained, tmp_path / f'{qat} rounded', QatConfig()), examples,
                         settings)
  assert loss_when_rounded(QatConfig()) < loss_when_rounded(None)


@pytest.mark.parametrize('mesh', [(2, 2, 2), (1, 4, 2)])
def test_a_step_is_the_same_on_eight_devices(make_model, examples, tokenizer, mesh):
  """Its loss and its gradients; after several steps, another code makes a difference."""
  rows = pack(examples, tokenizer, 32, True)
  rows = rows.pad(-(-len(rows) // 8) * 8)
  settings = dataclasses.replace(SETTINGS, max_grad_norm=1e6, beta1=0.0)
  def step(mesh):
    model, optimizer = make_model(mesh), make_optimizer(settings)
    abstract = abstract_train_state(model.decoder, 'params', optimizer, model.mesh)
    with jax.set_mesh(model.mesh):
      state = init_train_state(abstract, model.variables['params'], optimizer)
      one_step = make_train_step(model.decoder, 'params', optimizer, abstract, settings)
      after, metrics = one_step({}, state, jax.tree.map(model.put_batch, rows))
    (adam,) = [inner for inner in after.opt_state[1] if hasattr(inner, 'mu')]
    return float(metrics['loss']), adam.mu
  (loss, gradients), (expected, wanted) = step(sharding.make_mesh(*mesh)), step(None)
  assert loss == pytest.approx(expected, rel=1e-6)
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6),
               gradients, wanted)


def test_zeros_of_a_pruned_model_are_codes_too(make_model, examples, tmp_path):
  model = make_model()
  kernel = model.variables['params']['blocks']['mlp']['up']['kernel']
  zeros = np.asarray(kernel) < 0
  model.variables['params']['blocks']['mlp']['up']['kernel'] = jnp.where(zeros, 0, kernel)
  settings = dataclasses.replace(SETTINGS, steps=4, keep_zeros=True)
  small = _compressed(_run(model, examples, settings, tmp_path / 'run'), tmp_path / 'small',
                      SETTINGS.qat)
  assert not np.asarray(small.variables['params']['blocks']['mlp']['up']['kernel'])[zeros].any()


def test_it_needs_all_weights():
  with pytest.raises(UserError, match='set FinetuneConfig.adapter to None'):
    dataclasses.replace(SETTINGS, adapter=LoraConfig())
  with pytest.raises(UserError, match='group_size must be 32, 64 or 128, not 16'):
    QatConfig(group_size=16)


def test_matrices_that_are_no_whole_groups_are_refused(make_model, examples, tmp_path):
  """Before anything is trained: compress refuses them too."""
  refused = pytest.raises(UserError, match=r'QatConfig.group_size 32 does not divide the 48 inputs')
  model = make_model(mlp_dim=48)
  with refused:
    _run(model, examples, SETTINGS, tmp_path)
  with refused:
    program('train', model.config, model.mesh, 4, 32, SETTINGS)
  with refused:
    tf_jax.pretrain(TEXTS, output_dir=tmp_path, config=SETTINGS, shape=tf_jax.PretrainConfig(
        preset='smollm2_135m', layers=1, embed_dim=64, heads=4, kv_heads=2, head_dim=16,
        mlp_dim=48))
  QatConfig(bits='int8').check_model(model.config)
