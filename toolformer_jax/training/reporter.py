"""Writes the metrics of each step, and stops a run whose loss explodes or is not a number."""

import dataclasses
import math
import time
from collections.abc import Callable

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.training.checkpointing import StepCheckpoints
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.metrics import MetricsLog
from toolformer_jax.training.optimizer import learning_rate
from toolformer_jax.training.train_step import Metrics

_LOSS_DECAY = 0.8  # of the moving average of the loss: it covers about five steps
_MAX_EXPONENT = 700.0  # e to the power of more is no float


@dataclasses.dataclass
class Reporter:
  """Writes the metrics of a step while the device computes the next one.

  Attributes:
    config, checkpoints, progress: of the run.
    log: where metrics are written; None in all processes but the first.
    epoch_items: rows or sequences of an epoch; None for a stream.
    utilization: from tokens per second to model FLOPs utilization; None if the peak is unknown.
    epsilon: from the number of steps to the epsilon that they spend; None without privacy, or
      without noise.
    pending: number and metrics of the step that has not been reported yet.
    step_bytes: memory of a step on each device, to be written with the next metrics.
  """

  config: FinetuneConfig
  checkpoints: StepCheckpoints
  progress: Progress
  log: MetricsLog | None
  epoch_items: int | None
  utilization: Callable[[float], float | None]
  epsilon: Callable[[int], float] | None = None
  pending: tuple[int, Metrics] | None = None
  step_bytes: int | None = None
  _step_start: float = dataclasses.field(default_factory=time.monotonic)
  _mean_loss: float | None = None
  _lowest: tuple[float, int] = (math.inf, 0)  # of the moving average, and its step

  def restart_clock(self) -> None:
    """Excludes from the time of the next step what happened since the last step was reported."""
    self._step_start = time.monotonic()

  def report(self, dev_loss: Callable[[], float] | None = None, *, saved: bool = False
             ) -> float | None:
    """Waits for the pending step and writes its metrics.

    With `dev_loss` it also measures the dev loss, writes it and returns it. Neither the step time
    nor the MFU includes that. A state that is `saved` has all metrics before it on disk.

    Raises:
      UserError: the loss or the gradient is not a number, or the loss has risen too far. A run with
        an epsilon goes on: losses are not protected, and must not decide whether there is a model.
    """
    if self.pending is None:
      return None
    (step, metrics), self.pending = self.pending, None
    loss, grad_norm, tokens = (float(metrics[name]) for name in ('loss', 'grad_norm', 'tokens'))
    if not tokens and self._mean_loss is not None:
      loss = self._mean_loss  # a random sample of private texts may be empty
    elif tokens:
      self._mean_loss = loss if self._mean_loss is None else (
          _LOSS_DECAY * self._mean_loss + (1 - _LOSS_DECAY) * loss)
      if not self.epsilon:
        self._check(step, loss, grad_norm, self._mean_loss)
    seconds = time.monotonic() - self._step_start
    self.restart_clock()  # before the metrics are written: the device computes the next step
    values = {
        'loss': loss, 'grad_norm': grad_norm,
        'learning_rate': float(learning_rate(step - 1, self.config)),
        **({'epoch': round(step * self.config.batch_items / self.epoch_items, 4)}
           if self.epoch_items else {}),
        'tokens': int(tokens), 'step_s': round(seconds, 4),
        'tokens_per_s': round(tokens / seconds, 1)}
    if (mfu := self.utilization(tokens / seconds)) is not None:
      values['mfu'] = round(mfu, 4)
    if self.step_bytes:
      values['step_bytes'], self.step_bytes = self.step_bytes, None
    if self.epsilon and saved:
      values['epsilon'] = self.epsilon(step)
    measured = dev_loss() if dev_loss else None
    if measured is not None:
      self.restart_clock()
      values |= {'dev_loss': measured, 'dev_perplexity': math.exp(min(measured, _MAX_EXPONENT))}
    if self.log:
      self.log.write(step, **values)
      if saved:
        self.log.flush()
    self.progress.advance(1, f'loss {loss:.3f}')
    return measured

  def _check(self, step: int, loss: float, grad_norm: float, mean_loss: float) -> None:
    # The loss of step n is that of the state after step n - 1, which may be saved already. So the
    # newest state that is known to be good is that of step n - 2.
    if not math.isfinite(loss + grad_norm):
      raise UserError(f'step {step} has loss {loss} and gradient norm {grad_norm}; lower the '
                      'learning rate. The last good checkpoint: '
                      f'{self.checkpoints.last_good(step - 2)}')
    self._lowest = min(self._lowest, (mean_loss, step))
    lowest, at = self._lowest
    if mean_loss - lowest > self.config.max_loss_rise:
      raise UserError(f'the loss explodes: about {lowest:.2f} at step {at}, {mean_loss:.2f} at '
                      f'step {step}; lower the learning rate. The last good checkpoint: '
                      f'{self.checkpoints.last_good(at - 1)}')
