"""Zeros of a pruned model stay where they are, and everything else is trained."""

import dataclasses

import jax
import numpy as np
import pytest

import toolformer_jax as tf_jax
from toolformer_jax import LoraConfig, sharding
from toolformer_jax.compression.block_params import kernels
from toolformer_jax.compression.sparsity import prune_by_magnitude
from toolformer_jax.errors import UserError
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.planning.programs import program
from toolformer_jax.training import trainer
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import evaluate_loss, finetune_examples

from .plain import plain_example

SETTINGS = FinetuneConfig(steps=6, batch_rows=8, row_tokens=32, learning_rate=1e-2, save_every=2,
                          weight_decay=0.1, keep_zeros=True)
TEXTS = [f'the number after {i} is {i + 1}.' for i in range(24)]


@pytest.fixture
def examples(tokenizer):
  return [plain_example(text, tokenizer) for text in TEXTS]


def _pruned(make_model, pattern='unstructured', mesh=None):
  pruned = prune_by_magnitude(make_model(), 0.5, pattern)
  mesh = mesh or pruned.mesh
  return LanguageModel.from_variables(
      pruned.config, jax.tree.map(np.asarray, pruned.variables), pruned.tokenizer, mesh)


def _run(model, examples, settings, folder):
  return finetune_examples(model=model, examples=examples, config=settings, output_dir=folder,
                           depends_on={})


def _zeros(model):
  """Returns where the kernels of all blocks are zero, one after the other."""
  blocks = jax.tree.map(np.asarray, model.variables['params']['blocks'])
  return [kernel == 0 for layer in range(model.config.layers)
          for kernel in kernels(jax.tree.map(lambda x, layer=layer: x[layer], blocks)).values()]


@pytest.mark.parametrize('mesh', [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize('pattern', ['unstructured', '2:4'])
def test_exactly_the_zeros_of_the_checkpoint_are_kept(make_model, examples, pattern, mesh,
                                                      tmp_path):
  mesh = sharding.make_mesh(*mesh, devices=jax.devices()[:np.prod(mesh)])
  before = _pruned(make_model, pattern)
  trained = _run(_pruned(make_model, pattern, mesh), examples, SETTINGS, tmp_path)
  for zeros, wanted in zip(_zeros(trained), _zeros(before), strict=True):
    np.testing.assert_array_equal(zeros, wanted)
    assert abs(zeros.mean() - 0.5) < 0.01
    assert pattern != '2:4' or (zeros.T.reshape(-1, 4).sum(1) == 2).all()
  assert evaluate_loss(trained, examples, SETTINGS) < evaluate_loss(before, examples, SETTINGS) - .1
  # Whatever is no matrix of a block is trained as before.
  now, then = (np.asarray(model.variables['params']['embedding']) for model in (trained, before))
  assert (now != then).mean() > 0.9


def test_without_it_zeros_are_filled(make_model, examples, tmp_path):
  plain = dataclasses.replace(SETTINGS, keep_zeros=False)
  assert not any(zeros.mean() > 0.1 for zeros in _zeros(
      _run(_pruned(make_model), examples, plain, tmp_path)))


def test_a_model_without_zeros_is_refused(make_model, examples, tmp_path):
  with pytest.raises(UserError, match='keep_zeros has no effect: the model has no weights'):
    _run(make_model(), examples, SETTINGS, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_weights_that_were_rounded_to_zero_stay_zero(make_model, examples, tmp_path):
  config = tf_jax.CompressionConfig(bits='int4', rounding='nearest')
  path = tf_jax.compress(make_model(), output_dir=tmp_path / 'packed', config=config).path
  before = _zeros(tf_jax.load_model(path))
  trained = _run(tf_jax.load_model(path), examples, SETTINGS, tmp_path / 'run')
  for zeros, wanted in zip(_zeros(trained), before, strict=True):
    assert wanted.any()
    np.testing.assert_array_equal(zeros, wanted)


def test_a_resumed_run_has_the_masks_of_the_checkpoint(make_model, examples, tmp_path, monkeypatch):
  """And not those of the saved state, in which other weights may be zero by chance."""
  whole = _run(_pruned(make_model), examples, SETTINGS, tmp_path / 'whole')
  batch_picks, restore = trainer.batch_picks, trainer.StepCheckpoints.restore
  def dying(*arguments):
    for done, batch in enumerate(batch_picks(*arguments)):
      if done == 3:
        raise KeyboardInterrupt
      yield batch
  def of_zeros(checkpoints, abstract):
    state = restore(checkpoints, abstract)
    return state._replace(params=jax.tree.map(lambda x: x * 0, state.params))
  for name in ('stopped', 'zeros'):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      patch.setattr(trainer, 'batch_picks', dying)
      _run(_pruned(make_model), examples, SETTINGS, tmp_path / name)
  resumed = _run(_pruned(make_model), examples, SETTINGS, tmp_path / 'stopped')
  jax.tree.map(np.testing.assert_array_equal, resumed.variables, whole.variables)
  monkeypatch.setattr(trainer.StepCheckpoints, 'restore', of_zeros)
  grown = _run(_pruned(make_model), examples, SETTINGS, tmp_path / 'zeros')
  # Adam's moments of before move all weights that may move.
  for zeros, wanted in zip(_zeros(grown), _zeros(_pruned(make_model)), strict=True):
    np.testing.assert_array_equal(zeros, wanted)


def test_it_needs_all_weights():
  with pytest.raises(UserError, match='set FinetuneConfig.adapter to None'):
    dataclasses.replace(SETTINGS, adapter=LoraConfig())


def test_a_plan_counts_the_masks(make_model):
  config, mesh = make_model().config, make_model().mesh
  masked, plain = (program('train', config, mesh, 4, 32, settings) for settings in (
      SETTINGS, dataclasses.replace(SETTINGS, keep_zeros=False)))
  masked.lower(mesh)
  size = sum(zeros.size for zeros in _zeros(make_model()))
  assert sum(x.size for x in jax.tree.leaves(masked.arguments)) == size + sum(
      x.size for x in jax.tree.leaves(plain.arguments))
