"""A run ends with its best checkpoint, when it is time, when it is asked to, or with an error."""

import dataclasses
import json
import logging
import math
import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax.checkpoints.orbax import load_orbax_model
from toolformer_jax.errors import UserError
from toolformer_jax.runtime import oom
from toolformer_jax.training import trainer
from toolformer_jax.training.checkpointing import StepCheckpoints
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import evaluate_loss, finetune_examples

from .plain import plain_example

# It learns these texts by heart, and soon knows less of others.
SETTINGS = FinetuneConfig(steps=24, batch_rows=2, row_tokens=32, learning_rate=2e-2, save_every=4)
TEXTS = [f'the number after {i} is {i + 1}.' for i in range(6)]
OTHERS = ['nothing of the kind', 'the number before 7 is 6.']


@pytest.fixture
def run(make_model, tokenizer, tmp_path):
  """Returns a function from settings to the outcome of a run in the folder `run`."""
  def start(config=SETTINGS, dev=OTHERS, texts=TEXTS):
    return finetune_examples(
        model=make_model(), examples=[plain_example(text, tokenizer) for text in texts],
        dev_examples=[plain_example(text, tokenizer) for text in dev], config=config,
        output_dir=tmp_path / 'run', depends_on={})
  return start


def _lines(tmp_path):
  return [json.loads(line) for line in (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]


def _perplexities(tmp_path):
  return {line['step']: line['dev_perplexity'] for line in _lines(tmp_path)
          if 'dev_perplexity' in line}


def test_the_result_is_the_checkpoint_of_the_lowest_dev_perplexity(
    run, tokenizer, tmp_path, monkeypatch):
  tuned = run(dataclasses.replace(SETTINGS, keep=1))
  perplexities = _perplexities(tmp_path)
  assert list(perplexities) == [4, 8, 12, 16, 20, 24]
  best = min(perplexities, key=perplexities.get)
  assert best < 24
  others = [plain_example(text, tokenizer) for text in OTHERS]
  saved = load_orbax_model(tmp_path / 'run', tuned.mesh)
  assert math.exp(evaluate_loss(saved, others, SETTINGS)) == pytest.approx(perplexities[best])
  # Killed before the result was written, it is still the best one.
  (tmp_path / 'run/model').rename(tmp_path / 'run/lost')
  again = run(dataclasses.replace(SETTINGS, keep=1))
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, again.variables, saved.variables)))
  assert _perplexities(tmp_path) == perplexities


def test_without_progress_on_dev_texts_it_ends_early(run, tmp_path):
  whole = dataclasses.replace(SETTINGS, patience=2)
  run(whole)
  perplexities = _perplexities(tmp_path)
  best = min(perplexities, key=perplexities.get)
  assert list(perplexities)[-1] == best + 2 * SETTINGS.save_every < SETTINGS.steps
  before = _lines(tmp_path)
  run(whole)  # a second time it knows that it has ended
  assert _lines(tmp_path) == before


def test_patience_needs_dev_texts(run):
  with pytest.raises(UserError, match='patience needs texts to compare checkpoints by'):
    run(dataclasses.replace(SETTINGS, patience=2), dev=[])


def test_asked_to_stop_it_saves_and_goes_on_later(run, tmp_path, monkeypatch):
  def terminating(rows, numbers, mesh):
    steps.append(numbers)
    if len(steps) == 6:
      os.kill(os.getpid(), signal.SIGTERM)
    return put_batch(rows, numbers, mesh)
  steps, put_batch = [], trainer.put_batch
  handler = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    patch.setattr(trainer, 'put_batch', terminating)
    assert run(dev=[]) is None
  assert signal.getsignal(signal.SIGTERM) is handler
  assert [line['step'] for line in _lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
  assert not (tmp_path / 'run/model').exists()
  assert run(dev=[]) is not None
  assert [line['step'] for line in _lines(tmp_path)] == list(range(1, 25))


def test_an_exploding_loss_names_the_checkpoint_before_it(run, tmp_path):
  settings = dataclasses.replace(
      SETTINGS, steps=60, learning_rate=3.0, warmup_fraction=1.0, save_every=2, keep=50)
  with pytest.raises(UserError, match=r'the loss explodes: about .*checkpoint: .*steps/\d+') as e:
    run(settings, dev=[])
  losses = [line['loss'] for line in _lines(tmp_path)]
  named = int(str(e.value).rpartition('/')[2])
  assert losses[named - 1] < losses[0] + 0.1  # it was not yet one of those that are too high
  # Judged by their running mean: the very last may be lower again.
  assert max(losses) > min(losses) + settings.max_loss_rise


def test_a_line_of_metrics_says_what_a_step_did(run, tmp_path):
  run(dataclasses.replace(SETTINGS, steps=2))
  first = _lines(tmp_path)[0]
  assert first.keys() >= {'step', 'loss', 'grad_norm', 'learning_rate', 'step_s',
                          'tokens_per_s'}
  assert 'mfu' not in first  # nobody knows the peak of a CPU
  tokens = first['step_s'] * first['tokens_per_s']  # each was rounded
  assert 0.75 * 64 < tokens < 1.02 * 64  # two rows of 32, not all of them full


def test_the_first_line_has_the_memory_of_a_step_which_is_compiled_once(run, tmp_path):
  compiled = []
  def listen(event, duration_secs, **details):
    if event == '/jax/core/compile/backend_compile_duration':
      compiled.append(str(details))
  jax.clear_caches()
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    tuned = run(dataclasses.replace(SETTINGS, steps=3))
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert sum('train_step' in one for one in compiled) == 1
  first, *others = _lines(tmp_path)
  assert not any('step_bytes' in line for line in others)
  weights = sum(x.nbytes for x in jax.tree.leaves(tuned.variables))
  batch, logits = 4 * 2 * 32 * 4, 2 * 32 * tuned.config.vocab_size * 4
  # Weights and two moments, a gradient or what takes its place, the batch, and logits.
  assert 3 * weights + batch + logits < first['step_bytes'] < 20 * weights


@pytest.mark.parametrize(('available', 'warned'), [(1000, True), (10**12, False), (None, False)])
def test_a_cpu_that_lacks_memory_for_a_step_is_said_before_it(
    run, monkeypatch, caplog, available, warned):
  monkeypatch.setattr(oom, '_available_bytes', lambda: available)
  with caplog.at_level(logging.WARNING, 'toolformer_jax'):
    run(dataclasses.replace(SETTINGS, steps=1))
  assert ('raise num_microbatches' in caplog.text) == warned


def test_the_available_memory_is_less_than_all():
  assert 0 < oom._available_bytes() < os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def test_step_time_and_mfu_exclude_dev_evaluation_and_saving(run, tmp_path, monkeypatch):
  def slow(seconds, function):
    def slowed(*arguments, **options):
      time.sleep(seconds)
      return function(*arguments, **options)
    return slowed
  monkeypatch.setattr(trainer, 'mean_loss', slow(2.0, trainer.mean_loss))
  monkeypatch.setattr(StepCheckpoints, 'save', slow(2.0, StepCheckpoints.save))
  monkeypatch.setattr(trainer.flops, 'utilization', lambda flops_per_s, devices: flops_per_s)
  run(dataclasses.replace(SETTINGS, steps=4, save_every=2))
  steps = _lines(tmp_path)[1:]  # the first one includes compilation
  assert all(step['step_s'] < 2.0 for step in steps)
  flops_per_token = [step['mfu'] / step['tokens_per_s'] for step in steps]
  assert flops_per_token == pytest.approx([flops_per_token[0]] * 3, rel=0.01)


def test_metrics_count_tokens_and_epochs(run, tmp_path):
  run(dataclasses.replace(SETTINGS, steps=3), texts=['ab'] * 4, dev=[])
  # Each text has 4 tokens with its start token; all are in one row, which is a third of a batch.
  assert [(line['epoch'], line['tokens']) for line in _lines(tmp_path)] == [
      (2.0, 24), (4.0, 24), (6.0, 24)]


def test_a_state_can_be_restored_with_another_dtype(tmp_path):
  state = {'moment': jnp.arange(8, dtype=jnp.float32) / 3}
  abstract = {'moment': jax.ShapeDtypeStruct(
      (8,), jnp.bfloat16, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[1]))}
  with StepCheckpoints(tmp_path / 'steps', 1) as checkpoints:
    checkpoints.save(3, state)
  with StepCheckpoints(tmp_path / 'steps', 1) as checkpoints:
    restored = checkpoints.restore(abstract)['moment']
  assert restored.dtype == jnp.bfloat16 and restored.devices() == {jax.devices()[1]}
  np.testing.assert_array_equal(restored, state['moment'].astype(jnp.bfloat16))


def test_an_empty_checkpoint_that_is_the_newest_is_passed_over(tmp_path, caplog):
  state = {'x': jnp.arange(4.0)}
  abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
  with StepCheckpoints(tmp_path / 'steps', 2) as checkpoints:
    checkpoints.save(1, state)
  (tmp_path / 'steps' / '2').mkdir()  # as one half written would look on some file systems
  with StepCheckpoints(tmp_path / 'steps', 2) as checkpoints:
    np.testing.assert_array_equal(checkpoints.restore(abstract)['x'], state['x'])
