"""The training loop: metrics are written one step late, states saved, and the end decided."""

import dataclasses
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from toolformer_jax.errors import UserError
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.training.checkpointing import StepCheckpoints
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.data import put_rows
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.metrics import MetricsLog
from toolformer_jax.training.optimizer import learning_rate
from toolformer_jax.training.packing import PackedRows
from toolformer_jax.training.train_step import Metrics, TrainState

_DECAY = 0.8  # of the mean loss by which an explosion is detected: about five steps


def run_steps(
    state: TrainState, first: int, batches: Iterator[PackedRows], *,
    step: Callable[[TrainState, PackedRows], tuple[TrainState, Metrics]],
    dev_loss: Callable[[TrainState], float] | None, config: FinetuneConfig,
    checkpoints: StepCheckpoints, reporter: 'Reporter', stop: 'StopSignal',
) -> tuple[TrainState, bool]:
  """Does the steps that are left; returns the last state, and whether the run has ended.

  It has not if `stop` was reached: then the last state is saved, and a later run continues with it.

  Args:
    state: after step `first`.
    first: steps that are done.
    batches: of the steps after it.
    step: returns the next state; the given one is donated.
    dev_loss: by which checkpoints are compared; None for none.
    config, checkpoints, reporter, stop: of the run.

  Raises:
    UserError: the loss is no number any more, or far above what it was.
  """
  for number, batch in zip(range(first + 1, config.steps + 1), batches, strict=False):
    if _is_patience_over(number - 1, config, checkpoints):
      break
    state, metrics = step(state, batch)
    reporter.report()  # of the step before: the device is busy with this one meanwhile
    reporter.pending = number, metrics
    stopped, due = stop.reached(number), _is_due(number, config)
    if stopped or due:
      # A state is saved only after its loss was seen to be a number.
      loss = reporter.report(functools.partial(dev_loss, state) if dev_loss and due else None)
      checkpoints.save(number, state, loss)
      reporter.restart_clock()
    if stopped and number < config.steps:
      return state, False
  return state, True


def _is_due(step: int, config: FinetuneConfig) -> bool:
  return step % config.save_every == 0 or step == config.steps


def _is_patience_over(step: int, config: FinetuneConfig, checkpoints: StepCheckpoints) -> bool:
  best = checkpoints.best_step()
  patience = config.patience * config.save_every
  return bool(patience) and best is not None and step - best >= patience


@dataclasses.dataclass
class Reporter:
  """Writes the metrics of a step while the next one runs, and stops a run whose loss explodes.

  Attributes:
    config, checkpoints, progress: of the run.
    log: where metrics are written; None in all processes but one.
    utilization: from useful tokens a second to the share of the devices' peak, or None.
    pending: number and metrics of the step that has not been reported yet.
  """

  config: FinetuneConfig
  checkpoints: StepCheckpoints
  progress: Progress
  log: MetricsLog | None
  utilization: Callable[[float], float | None]
  pending: tuple[int, Metrics] | None = None
  _clock: float = dataclasses.field(default_factory=time.monotonic)
  _mean: float | None = None
  _lowest: tuple[float, int] = (math.inf, 0)  # of that mean, and its step

  def restart_clock(self) -> None:
    """Leaves out of the next step's time what was done since the last step was reported."""
    self._clock = time.monotonic()

  def report(self, dev_loss: Callable[[], float] | None = None) -> float | None:
    """Waits for the pending step and writes its metrics.

    With `dev_loss` it also measures and writes the dev perplexity, and returns that loss; the time
    which this takes belongs to no step.

    Raises:
      UserError: its loss or gradient is not a number, or the loss has risen too far.
    """
    if self.pending is None:
      return None
    (number, metrics), self.pending = self.pending, None
    loss, norm, tokens = (float(metrics[name]) for name in ('loss', 'gradient_norm', 'tokens'))
    self._check(number, loss, norm)
    before, self._clock = self._clock, time.monotonic()
    seconds = self._clock - before
    values = {'loss': loss, 'gradient_norm': norm,
              'learning_rate': float(learning_rate(number - 1, self.config)),
              'step_s': round(seconds, 4), 'tokens_per_s': round(tokens / seconds, 1)}
    if (share := self.utilization(tokens / seconds)) is not None:
      values['mfu'] = round(share, 4)
    loss_on_dev = dev_loss() if dev_loss else None
    if loss_on_dev is not None:
      values['dev_perplexity'] = math.exp(min(loss_on_dev, 700.0))  # a larger one is no float
      self._clock = time.monotonic()
    if self.log:
      self.log.write(number, **values)
    self.progress.advance(1, f'loss {loss:.3f}')
    return loss_on_dev

  def _check(self, number: int, loss: float, norm: float) -> None:
    # The loss of step n is that of the state after step n - 1, which may be saved already.
    if not math.isfinite(loss + norm):
      raise UserError(f'step {number} has loss {loss} and gradient norm {norm}; lower the learning '
                      f'rate. The last good checkpoint: {self.checkpoints.last_good(number - 2)}')
    self._mean = loss if self._mean is None else _DECAY * self._mean + (1 - _DECAY) * loss
    self._lowest = min(self._lowest, (self._mean, number))
    lowest, at = self._lowest
    if self._mean - lowest > self.config.max_loss_rise:
      raise UserError(f'the loss explodes: about {lowest:.2f} at step {at}, {self._mean:.2f} at '
                      f'step {number}; lower the learning rate. The last good checkpoint: '
                      f'{self.checkpoints.last_good(at - 1)}')


class StopSignal:
  """Notices SIGTERM, by which machines are preempted; a second one ends the process as usual.

  For several processes that train together JAX has a handler of its own.
  """

  def __init__(self):
    """Begins without a signal."""
    self._received = False
    self._before = None

  def reached(self, step: int) -> bool:
    """Tells whether to stop after `step`: the same for all processes. Must be called every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._received

  def __enter__(self) -> Self:
    # Python lets only the main thread handle signals.
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._receive)
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._restore()

  def _receive(self, number: int, frame: FrameType | None) -> None:
    self._received = True
    self._restore()

  def _restore(self) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)
      self._before = None


def mean_loss(model: LanguageModel, rows: PackedRows, batch_rows: int, loss_tokens: int) -> float:
  """Returns the mean loss of `rows` in nats per token, `batch_rows` at a time."""
  total = weight = 0.0
  filled = rows.pad(-(-len(rows) // batch_rows) * batch_rows)
  for numbers in np.split(np.arange(len(filled)), len(filled) // batch_rows):
    with jax.set_mesh(model.mesh):
      batch = put_rows(filled, numbers, model.mesh)
      sums = _loss_sums(model.decoder, model.variables, batch, loss_tokens=loss_tokens)
    total, weight = total + float(sums.nll), weight + float(sums.weight)
  return total / weight


_loss_sums = functools.partial(jax.jit, static_argnums=0, static_argnames='loss_tokens')(
    next_token_loss)
