"""Fine-tuning learns, resumes to the bit, and refuses what it cannot go on with."""

import dataclasses
import json
from string import ascii_lowercase

import jax
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.checkpoints.orbax import load_orbax_model
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import abstract_variables
from toolformer_jax.training import trainer
from toolformer_jax.training.adapters import init_adapter
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import evaluate_loss, finetune_examples
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.train_step import abstract_train_state

from .plain import plain_example

SETTINGS = FinetuneConfig(steps=6, batch_rows=2, row_tokens=32, learning_rate=1e-2, save_every=2)
LORA = dataclasses.replace(SETTINGS, adapter=LoraConfig(rank=4))
TEXTS = [f'the number after {i} is {i + 1}.' for i in range(12)]


@pytest.fixture
def examples(tokenizer):
  return [plain_example(text, tokenizer) for text in TEXTS]


def _run(model, examples, settings, folder, **configuration):
  return finetune_examples(model=model, examples=examples, config=settings, output_dir=folder,
                  depends_on=configuration)


def _losses(folder):
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return [(line['step'], line['loss']) for line in lines]


def _stop_after(monkeypatch, steps):
  """Makes the next run die once it has drawn the batches of `steps` steps."""
  def dying(*arguments):
    for done, batch in enumerate(batch_picks(*arguments)):
      if done == steps:
        raise KeyboardInterrupt
      yield batch
  batch_picks = trainer.batch_picks
  monkeypatch.setattr(trainer, 'batch_picks', dying)


def _equal(one, other):
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def _logits(model, tokens):
  return jax.jit(model.decoder.apply)(model.variables, tokens)[0]


@pytest.mark.parametrize('settings', [SETTINGS, LORA])
def test_training_lowers_the_loss(make_model, examples, settings, tmp_path):
  model = make_model()
  before = evaluate_loss(model, examples, settings)
  after = evaluate_loss(_run(model, examples, settings, tmp_path), examples, settings)
  assert after < before - 0.1
  assert _losses(tmp_path)[0] == (1, pytest.approx(before, abs=0.5))


@pytest.mark.parametrize('policy', ['save_qkv_proj', 'full'])
def test_recomputing_activations_changes_no_loss(make_model, examples, policy, tmp_path):
  _run(make_model(), examples, SETTINGS, tmp_path / 'kept')
  settings = dataclasses.replace(SETTINGS, remat_policy=policy)
  _run(make_model(), examples, settings, tmp_path / 'recomputed')
  np.testing.assert_allclose(_losses(tmp_path / 'recomputed'), _losses(tmp_path / 'kept'),
                             rtol=1e-5)


def test_a_planted_rule_is_learned(make_model, tokenizer, tmp_path):
  texts = [f'{a}{a}{b}{b}' for a in ascii_lowercase for b in ascii_lowercase]
  known = [plain_example(text, tokenizer) for i, text in enumerate(texts) if i % 7]
  settings = dataclasses.replace(SETTINGS, steps=200, batch_rows=8, learning_rate=5e-3,
                                 beta2=0.98, save_every=1000)
  model = _run(make_model(), known, settings, tmp_path)
  tokens = np.array([[tokenizer.start_id, *tokenizer.encode(text)] for text in texts[::7]])
  logits = _logits(model, tokens)
  copied = np.argmax(logits, -1)[:, 3] == tokens[:, 4]
  assert copied.mean() >= 0.8  # 1 in 26 by chance


def test_adapters_change_nothing_at_first(make_model):
  model = make_model()
  decoder = Decoder(model.config.replace(adapter=LoraConfig(rank=4)))
  where = sharding.state_shardings(abstract_variables(decoder)['adapter'], model.mesh)
  variables = {**model.variables, 'adapter': init_adapter(decoder, where, seed=0)}
  with_adapters = dataclasses.replace(model, decoder=decoder, variables=variables)
  tokens = np.arange(20)[None]
  assert np.array_equal(_logits(with_adapters, tokens), _logits(model, tokens))


def test_the_kernel_is_the_mesh_s(make_model, examples, tmp_path):
  model = make_model()
  model = dataclasses.replace(model, decoder=model.decoder.clone(kernel='splash'))
  settings = dataclasses.replace(LORA, steps=1)
  assert _run(model, examples, settings, tmp_path).decoder.kernel == 'splash'
  assert load_orbax_model(tmp_path, model.mesh).decoder.kernel == 'xla'  # a file does not say


def test_only_adapters_are_trained(make_model, examples, tmp_path):
  model = make_model()
  base = jax.tree.map(np.array, model.variables['params'])
  tuned = _run(model, examples, LORA, tmp_path)
  assert _equal(tuned.variables['params'], base)
  grown = jax.tree.map(lambda array: bool(np.abs(array).max()), tuned.variables['adapter'])
  assert all(jax.tree.leaves(grown))  # half of them began as zeros


def test_examples_without_weight_are_refused(make_model, examples, tmp_path):
  silent = [example._replace(loss_weights=[0.0] * len(example.token_ids)) for example in examples]
  settings = dataclasses.replace(SETTINGS, end_of_text=False)
  with pytest.raises(UserError, match='none of the 12 examples'):
    _run(make_model(), silent, settings, tmp_path)


@pytest.mark.parametrize(('settings', 'done'), [(SETTINGS, 1), (SETTINGS, 5), (LORA, 3)])
def test_a_resumed_run_equals_one_that_was_never_stopped(
    make_model, examples, settings, done, tmp_path, monkeypatch):
  whole = _run(make_model(), examples, settings, tmp_path / 'whole')
  with monkeypatch.context() as patch:
    _stop_after(patch, done)
    with pytest.raises(KeyboardInterrupt):
      _run(make_model(), examples, settings, tmp_path / 'stopped')
  assert len(_losses(tmp_path / 'stopped')) < settings.steps
  resumed = _run(make_model(), examples, settings, tmp_path / 'stopped')
  assert _losses(tmp_path / 'stopped') == _losses(tmp_path / 'whole')
  assert _equal(resumed.variables, whole.variables)


def test_a_broken_checkpoint_is_passed_over(make_model, examples, tmp_path, caplog):
  whole = _run(make_model(), examples, SETTINGS, tmp_path)
  losses = _losses(tmp_path)
  for file in (tmp_path / 'steps' / '6').rglob('*'):
    if file.is_file() and 'METADATA' not in file.name.upper():
      file.write_bytes(b'broken')
  again = _run(make_model(), examples, SETTINGS, tmp_path)
  assert 'cannot be read' in caplog.text
  assert _losses(tmp_path) == losses
  assert _equal(again.variables, whole.variables)


def test_a_finished_run_is_left_as_it_is(make_model, examples, tmp_path):
  whole = _run(make_model(), examples, LORA, tmp_path)
  written = (tmp_path / 'model' / 'config.json').stat().st_mtime_ns
  again = _run(make_model(), examples, dataclasses.replace(LORA, save_every=3), tmp_path)
  assert _equal(again.variables, whole.variables)
  assert (tmp_path / 'model' / 'config.json').stat().st_mtime_ns == written


@pytest.mark.parametrize(('settings', 'configuration', 'named'), [
  (dataclasses.replace(SETTINGS, learning_rate=0.5), {'data': 'a'},
   r'finetune.learning_rate \(0.01 then, 0.5 now\)'),
  (SETTINGS, {'data': 'b'}, r"data \('a' then, 'b' now\)"),
])
def test_another_configuration_is_refused(
    make_model, examples, settings, configuration, named, tmp_path):
  short = dataclasses.replace(SETTINGS, steps=6)
  _run(make_model(), examples, short, tmp_path, data='a')
  before = (tmp_path / 'metrics.jsonl').read_text()
  with pytest.raises(UserError, match=named):
    _run(make_model(), examples, settings, tmp_path, **configuration)
  assert (tmp_path / 'metrics.jsonl').read_text() == before


def test_other_examples_are_refused(make_model, examples, tmp_path):
  _run(make_model(), examples, SETTINGS, tmp_path)
  with pytest.raises(UserError, match='examples_sha256'):
    _run(make_model(), examples[:-1], SETTINGS, tmp_path)


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(
    make_model, examples, tmp_path, monkeypatch):
  def spoilt(rows, numbers, mesh):
    batch = put_batch(rows, numbers, mesh)
    steps.append(numbers)
    return batch if len(steps) < 5 else dataclasses.replace(
        batch, loss_weights_RT=batch.loss_weights_RT * np.nan)
  steps, put_batch = [], trainer.put_batch
  monkeypatch.setattr(trainer, 'put_batch', spoilt)
  with pytest.raises(UserError, match='step 5 has loss nan.*last good checkpoint: .*steps/2'):
    _run(make_model(), examples, SETTINGS, tmp_path)
  assert [step for step, _ in _losses(tmp_path)] == [1, 2, 3, 4]
  assert not (tmp_path / 'model').exists()


def test_rows_longer_than_the_model_are_refused(make_model, examples, tmp_path):
  with pytest.raises(UserError, match='row_tokens is 129, but the model has only 128'):
    _run(make_model(), examples, dataclasses.replace(SETTINGS, row_tokens=129), tmp_path)


def test_adapters_of_another_rank_are_refused(make_model, examples, tmp_path):
  tuned = _run(make_model(), examples, LORA, tmp_path / 'one')
  with pytest.raises(UserError, match=r'the model has the adapter LoraConfig\(.*rank=4'):
    _run(tuned, examples, SETTINGS, tmp_path / 'two')


def test_adapters_can_be_trained_on(make_model, examples, tmp_path):
  first = _run(make_model(), examples, LORA, tmp_path / 'one')
  before = evaluate_loss(first, examples, LORA)
  assert evaluate_loss(_run(first, examples, LORA, tmp_path / 'two'), examples, LORA) < before


def test_eight_devices_train_like_one(make_model, examples, tmp_path):
  settings = dataclasses.replace(SETTINGS, batch_rows=4)
  one = _run(make_model(), examples, settings, tmp_path / 'one')
  eight = _run(make_model(sharding.make_mesh(2, 2, 2)), examples, settings, tmp_path / 'eight')
  np.testing.assert_allclose(_losses(tmp_path / 'eight'), _losses(tmp_path / 'one'), rtol=1e-4)
  assert _equal(load_orbax_model(tmp_path / 'eight', one.mesh).variables, eight.variables)


@pytest.mark.parametrize('collection', ['params', 'adapter'])
def test_moments_are_split_like_what_they_are_moments_of(make_model, collection):
  model = make_model(sharding.make_mesh(2, 2, 2), adapter=LoraConfig(rank=4))
  state = abstract_train_state(model.decoder, collection, make_optimizer(SETTINGS), model.mesh)
  where = [leaf.sharding.spec for leaf in jax.tree.leaves(state.params)]
  assert any(axis for spec in where for axis in spec)
  (adam,) = [inner for inner in state.opt_state[1] if hasattr(inner, 'mu')]
  for moment in (adam.mu, adam.nu):
    assert [leaf.sharding.spec for leaf in jax.tree.leaves(moment)] == where


def test_a_batch_of_texts_is_the_same_step_in_packed_rows_as_in_rows_of_their_own(
    make_model, examples, tmp_path):
  """The paper's batch: as many sequences as batch_size says, however many rows they take."""
  settings = FinetuneConfig(steps=4, batch_size=3, row_tokens=64, learning_rate=1e-2)
  shared = _run(make_model(), examples, settings, tmp_path / 'shared')
  alone = _run(make_model(), examples, dataclasses.replace(settings, row_tokens=32),
               tmp_path / 'alone')
  losses = [dict(_losses(tmp_path / folder)) for folder in ('shared', 'alone')]
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)
  lines = [json.loads(line) for line in (tmp_path / 'shared/metrics.jsonl').open()]
  assert [line['epoch'] for line in lines] == [0.25, 0.5, 0.75, 1.0]
  tokens = sum(len(example.token_ids) + 1 for example in examples)
  assert sum(line['tokens'] for line in lines) == tokens
  tokens_BT = np.array([shared.tokenizer.encode(TEXTS[0])])
  np.testing.assert_allclose(_logits(shared, tokens_BT), _logits(alone, tokens_BT), atol=1e-3)


def test_a_run_on_batches_of_texts_resumes_to_the_bit(make_model, examples, tmp_path, monkeypatch):
  settings = dataclasses.replace(SETTINGS, batch_rows=0, batch_size=5)
  _run(make_model(), examples, settings, tmp_path / 'whole')
  with monkeypatch.context() as patch:
    _stop_after(patch, 5)
    with pytest.raises(KeyboardInterrupt):
      _run(make_model(), examples, settings, tmp_path / 'stopped')
  _run(make_model(), examples, settings, tmp_path / 'stopped')
  assert _losses(tmp_path / 'stopped') == _losses(tmp_path / 'whole')


@pytest.mark.parametrize('batch', [{'batch_size': 3}, {'batch_rows': 2}])
def test_epochs_take_the_place_of_steps(make_model, examples, tmp_path, batch):
  settings = FinetuneConfig(epochs=1.5, row_tokens=32, learning_rate=1e-2, **batch)
  _run(make_model(), examples, settings, tmp_path)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').open()]
  assert lines[-1]['epoch'] == pytest.approx(1.5, abs=0.1)
