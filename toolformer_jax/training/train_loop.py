"""The steps of a fine-tuning run: reported one late, saved now and then, ended when it is time."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.training.checkpointing import StepCheckpoints
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.interruption import StopSignal
from toolformer_jax.training.log import MetricsLog
from toolformer_jax.training.optimizer import learning_rate
from toolformer_jax.training.packing import PackedRows
from toolformer_jax.training.train_step import Metrics, TrainState

_MEMORY = 0.8  # of the mean loss that explosions are told by: it looks about five steps back


def run_steps(
    state: TrainState, first: int, batches: Iterator[PackedRows], *,
    step: Callable[[TrainState, PackedRows], tuple[TrainState, Metrics]],
    dev_loss: Callable[[TrainState], float] | None, settings: FinetuneConfig,
    checkpoints: StepCheckpoints, reporter: 'Reporter', stop: StopSignal,
) -> tuple[TrainState, bool]:
  """Does the steps that are left; returns the last state, and whether the run has ended.

  It has not if `stop` was reached: then the last state is saved, and a later run goes on with it.

  Args:
    state: after step `first`.
    first: steps that are done.
    batches: of the steps after it.
    step: changes the state; the old one is gone.
    dev_loss: what a checkpoint is judged by, if there is something.
    settings, checkpoints, reporter, stop: of the run.

  Raises:
    UserError: the loss is no number any more, or far above what it was.
  """
  for number, batch in zip(range(first + 1, settings.steps + 1), batches, strict=False):
    if _is_patience_over(number - 1, settings, checkpoints):
      break
    state, metrics = step(state, batch)
    reporter.report()  # of the step before: the device is busy with this one meanwhile
    reporter.pending = number, metrics
    stopped, due = stop.reached(number), _is_due(number, settings)
    if stopped or due:
      loss = dev_loss(state) if dev_loss and due else None
      reporter.report(loss)  # a state is saved only after its loss was seen to be a number
      checkpoints.save(number, state, loss)
    if stopped and number < settings.steps:
      return state, False
  return state, True


def _is_due(step: int, settings: FinetuneConfig) -> bool:
  return step % settings.save_every == 0 or step == settings.steps


def _is_patience_over(step: int, settings: FinetuneConfig, checkpoints: StepCheckpoints) -> bool:
  best = checkpoints.best_step()
  patience = settings.patience * settings.save_every
  return bool(patience) and best is not None and step - best >= patience


@dataclasses.dataclass
class Reporter:
  """Tells what a step did, one step late, and stops a run whose loss explodes.

  Attributes:
    settings, checkpoints, progress: of the run.
    log: where metrics are written; None in all processes but one.
    utilization: from useful tokens a second to the share of the devices' peak, or None.
    pending: number and metrics of the step that has not been reported yet.
  """

  settings: FinetuneConfig
  checkpoints: StepCheckpoints
  progress: Progress
  log: MetricsLog | None
  utilization: Callable[[float], float | None]
  pending: tuple[int, Metrics] | None = None
  _clock: float = dataclasses.field(default_factory=time.monotonic)
  _mean: float | None = None
  _lowest: tuple[float, int] = (math.inf, 0)  # of that mean, and its step

  def report(self, dev_loss: float | None = None) -> None:
    """Waits for the pending step and writes its metrics, and the dev perplexity after it.

    Raises:
      UserError: its loss or gradient is not a number, or the loss has risen too far.
    """
    if self.pending is None:
      return
    (number, metrics), self.pending = self.pending, None
    loss, norm, tokens = (float(metrics[name]) for name in ('loss', 'gradient_norm', 'tokens'))
    self._check(number, loss, norm)
    before, self._clock = self._clock, time.monotonic()
    seconds = self._clock - before
    values = {'loss': loss, 'gradient_norm': norm,
              'learning_rate': float(learning_rate(number - 1, self.settings)),
              'step_s': round(seconds, 4), 'tokens_per_s': round(tokens / seconds, 1)}
    if (share := self.utilization(tokens / seconds)) is not None:
      values['mfu'] = round(share, 4)
    if dev_loss is not None:
      values['dev_perplexity'] = math.exp(min(dev_loss, 700.0))  # more is no float
    if self.log:
      self.log.write(number, **values)
    self.progress.advance(1, f'loss {loss:.3f}')

  def _check(self, number: int, loss: float, norm: float) -> None:
    if not math.isfinite(loss + norm):
      raise UserError(f'step {number} has loss {loss} and gradient norm {norm}; lower the learning '
                      f'rate. The last good checkpoint: {self.checkpoints.last_good(number)}')
    self._mean = loss if self._mean is None else _MEMORY * self._mean + (1 - _MEMORY) * loss
    self._lowest = min(self._lowest, (self._mean, number))
    lowest, at = self._lowest
    if self._mean - lowest > self.settings.max_loss_rise:
      raise UserError(f'the loss explodes: about {lowest:.2f} at step {at}, {self._mean:.2f} at '
                      f'step {number}; lower the learning rate. The last good checkpoint: '
                      f'{self.checkpoints.last_good(at)}')
