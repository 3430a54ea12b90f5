"""A run ends with a summary that says how much was trained, how well, and where the result is."""

import pathlib

import pytest

from toolformer_jax.training.result import FinetuneResult

METRICS = tuple(
    {'step': step, 'loss': 3.0 - 0.5 * step, 'epoch': 0.75 * step, 'tokens': 600} | dev
    for step, dev in ((1, {}), (2, {'dev_loss': 2.25}), (3, {}), (4, {'dev_loss': 2.5})))
TRAINED = ('4 steps: 3.0 epochs of 1,200 texts, 2,400 tokens. The training loss went from 2.500 to '
           '1.000 nats per token.')


def test_a_run_that_ended_early_says_so(make_model):
  def summary(model, max_steps):
    return FinetuneResult(model, METRICS[:1], None, 1200, max_steps=max_steps).summary()
  assert 'Trained 1 step: ' in summary(make_model(), 1)
  assert 'before step 8, because the dev loss did not fall' in summary(make_model(), 8)
  for text in (summary(make_model(), 1), summary(None, 8)):
    assert 'FinetuneConfig.patience' not in text


def test_epsilon_is_rounded_up(make_model):
  metrics = ({**METRICS[0], 'epsilon': 0.0612},)
  assert '(0.07, 1e-05)' in FinetuneResult(make_model(), metrics, None, 9, delta=1e-5).summary()


@pytest.mark.parametrize(('finished', 'metrics', 'output_dir', 'summary'), [
  (True, METRICS, 'runs/a', f'Trained {TRAINED} The lowest dev loss was 2.250, at step 2; that '
   'checkpoint is the result. The checkpoint is in runs/a.'),
  (False, METRICS, 'runs/a', f'Stopped after {TRAINED} The lowest dev loss was 2.250, at step 2. '
   'The same command continues from the saved state.'),
  (True, METRICS[2:3], None, 'Trained 3 steps: 2.2 epochs of 1,200 texts, 600 tokens. The training '
   'loss went from 1.500 to 1.500 nats per token.'),
  (True, (), 'runs/a', 'No step was done.'),
])
def test_the_summary_is_one_paragraph(make_model, finished, metrics, output_dir, summary):
  result = FinetuneResult(make_model() if finished else None, metrics,
                          pathlib.Path(output_dir) if output_dir else None, 1200)
  assert result.summary() == summary
