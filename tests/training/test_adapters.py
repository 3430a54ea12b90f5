"""Every kind of adapter learns; AdaLoRA does so alike on a mesh, and resumes to the bit."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  BottleneckConfig,
  Ia3Config,
  LoraConfig,
  PrefixConfig,
)
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.training import trainer
from toolformer_jax.training.adalora import budgets
from toolformer_jax.training.adapters import add_adapter
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import finetune_examples
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.packing import pack
from toolformer_jax.training.train_step import (
  abstract_train_state,
  init_train_state,
  make_train_step,
)

from .plain import plain_example

STEPS = 6
ADALORA = AdaLoraConfig(init_rank=4, target_rank=2, target_modules=('value', 'down'), tinit=1,
                        tfinal=1)
OTHERS = (Ia3Config(), BottleneckConfig(), PrefixConfig(num_virtual_tokens=3))
SETTINGS = FinetuneConfig(steps=STEPS, batch_rows=2, row_tokens=32, learning_rate=3e-2,
                          save_every=3)
TEXTS = [f'the number after {i} is {i + 1}.' for i in range(12)]


def _losses(model, batch, settings):
  """Returns the losses of all steps on the same batch, and the trained adapter."""
  optimizer, decoder = make_optimizer(settings), model.decoder
  abstract = abstract_train_state(decoder, ADAPTER, optimizer, model.mesh)
  state = init_train_state(abstract, model.variables[ADAPTER], optimizer)
  step = make_train_step(decoder, ADAPTER, optimizer, abstract, settings)
  losses = []
  with jax.set_mesh(model.mesh):
    for _ in range(settings.steps):
      state, metrics = step({'params': model.variables['params']}, state,
                            jax.tree.map(model.put_batch, batch))
      losses.append(float(metrics['loss']))
  return losses, state.params


@pytest.fixture
def batch(tokenizer):
  return pack([plain_example(text, tokenizer) for text in TEXTS[:4]], tokenizer, 64, True).pad(4)


@pytest.mark.parametrize('adapter', OTHERS, ids=lambda adapter: adapter.kind)
def test_an_adapter_learns(make_model, batch, adapter):
  settings = dataclasses.replace(SETTINGS, adapter=adapter)
  losses, _ = _losses(add_adapter(make_model(), settings), batch, settings)
  assert losses[-1] < losses[0]


def test_ranks_are_taken_away_alike_on_one_device_and_on_eight(make_model, batch):
  settings = dataclasses.replace(SETTINGS, adapter=ADALORA)
  losses, trained = _losses(add_adapter(make_model(), settings), batch, settings)
  assert losses[-1] < losses[0]
  sharded, _ = _losses(add_adapter(make_model(sharding.make_mesh(2, 2, 2)), settings), batch,
                       settings)
  np.testing.assert_allclose(sharded, losses, rtol=1e-4)
  kept = [np.count_nonzero(one) for path, one in jax.tree_util.tree_leaves_with_path(trained)
          if path[-1].key == 'e']
  assert sum(kept) == 2 * 2 * ADALORA.target_rank  # of two layers of two modules


def test_the_choice_of_ranks_goes_on_after_a_restart(make_model, tokenizer, tmp_path, monkeypatch):
  settings = dataclasses.replace(SETTINGS, adapter=ADALORA)
  examples = [plain_example(text, tokenizer) for text in TEXTS]
  def run(folder):
    tuned = finetune_examples(model=make_model(), examples=examples, config=settings,
                              output_dir=tmp_path / folder, depends_on={})
    lines = (tmp_path / folder / 'metrics.jsonl').read_text().splitlines()
    return tuned.variables, [json.loads(line)['loss'] for line in lines]
  whole, losses = run('whole')
  assert _equal(whole['params'], make_model().variables['params'])
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    _dies_after(patch, 4)
    run('parts')
  resumed, again = run('parts')
  assert again == losses and _equal(resumed, whole)


def _dies_after(monkeypatch, steps):
  """Makes the next run die once it has drawn the batches of `steps` steps."""
  batch_picks = trainer.batch_picks
  def dying(*arguments):
    for done, batch in enumerate(batch_picks(*arguments)):
      if done == steps:
        raise KeyboardInterrupt
      yield batch
  monkeypatch.setattr(trainer, 'batch_picks', dying)


def _equal(one, other):
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


@pytest.mark.parametrize(('tinit', 'tfinal', 'steps'), [(0, 0, 9), (3, 2, 20), (10, 0, 11)])
def test_the_budget_falls_from_all_ranks_to_the_target(tinit, tfinal, steps):
  config = AdaLoraConfig(init_rank=6, target_rank=2, tinit=tinit, tfinal=tfinal)
  left = budgets(config, steps, 5 * 6)
  assert len(left) == steps + 1
  assert set(left[:tinit + 1]) == {30} and set(left[steps - tfinal:]) == {10}
  assert np.all(np.diff(left) <= 0)


def test_a_schedule_without_steps_to_choose_ranks_in_is_refused():
  with pytest.raises(UserError, match='leave no step to choose ranks in: the training has 6'):
    dataclasses.replace(SETTINGS, adapter=AdaLoraConfig(tinit=4, tfinal=2))
  epochs = dataclasses.replace(SETTINGS, epochs=1.0, steps=1,
                               adapter=AdaLoraConfig(tinit=4, tfinal=2))
  with pytest.raises(UserError, match='leave no step'):
    make_optimizer(epochs)


def test_a_model_with_another_adapter_is_refused(make_model, tokenizer, tmp_path):
  with pytest.raises(UserError, match='the model has the adapter Ia3Config') as refused:
    finetune_examples(
        model=make_model(adapter=Ia3Config()), examples=[plain_example('a b', tokenizer)],
        config=dataclasses.replace(SETTINGS, adapter=LoraConfig()), output_dir=tmp_path,
        depends_on={})
  assert '\n' not in str(refused.value)
