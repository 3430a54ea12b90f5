"""The training loop: runs the steps, saves states, and decides when to stop."""

import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.oom import warn_if_host_memory_is_short
from toolformer_jax.training.checkpointing import StepCheckpoints
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.input_pipeline import put_batch
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.packing import PackedRows
from toolformer_jax.training.preemption import StopSignal
from toolformer_jax.training.reporter import Reporter
from toolformer_jax.training.train_step import Metrics, TrainState


def train_loop(
    state: TrainState, start_step: int, batches: Iterator[PackedRows], *,
    train_step: Callable[[TrainState, PackedRows], tuple[TrainState, Metrics]],
    trace: Callable[[TrainState, PackedRows], jax.stages.Traced],
    dev_loss: Callable[[TrainState], float] | None, config: FinetuneConfig,
    checkpoints: StepCheckpoints, reporter: Reporter, stop: StopSignal, advice: str,
) -> tuple[TrainState, bool]:
  """Runs the steps that are left; returns the last state, and whether the run is finished.

  It is not finished if `stop` was reached. The last state is then saved, and a later run continues
  from it.

  Args:
    state: the state after step `start_step`; it is donated.
    start_step: number of steps done.
    batches: the batches of the steps after it.
    train_step: returns the next state and the metrics of the step.
    trace: returns the step as JAX has traced it, for the same arguments.
    dev_loss: the loss that checkpoints are compared by; None for no dev texts.
    config, checkpoints, reporter, stop: of the run.
    advice: what the user can do if memory is short.

  Raises:
    UserError: the loss is not a number, or has risen too far.
  """
  for step, batch in zip(range(start_step + 1, config.steps + 1), batches, strict=False):
    if _is_patience_over(step - 1, config, checkpoints):
      break
    if step == start_step + 1:
      reporter.step_bytes = _step_bytes(trace(state, batch), advice)
    state, metrics = train_step(state, batch)
    reporter.report()  # of the step before, while the device computes this one
    reporter.pending = step, metrics
    stopped, due = stop.reached(step), _is_due(step, config)
    if stopped or due:
      # Reported first: a state is not saved if the loss of its step is not a number.
      loss = reporter.report(functools.partial(dev_loss, state) if dev_loss and due else None,
                             saved=True)
      checkpoints.save(step, state, loss)
      reporter.restart_clock()
    if stopped and step < config.steps:
      return state, False
  return state, True


def _step_bytes(step: jax.stages.Traced, advice: str) -> int | None:
  """Returns the memory of a step on each device, None if the compiler does not say.

  Warns if a CPU lacks it. The program is compiled here, and not again when the step is run.
  """
  if not (sizes := step.lower().compile().memory_analysis()):
    return None
  added = sizes.temp_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  warn_if_host_memory_is_short(added * jax.local_device_count(), advice)
  return sizes.argument_size_in_bytes + added


def _is_due(step: int, config: FinetuneConfig) -> bool:
  return step % config.save_every == 0 or step == config.steps


def _is_patience_over(step: int, config: FinetuneConfig, checkpoints: StepCheckpoints) -> bool:
  best = checkpoints.best_step()
  patience = config.patience * config.save_every
  return bool(patience) and best is not None and step - best >= patience


def mean_loss(model: LanguageModel, rows: PackedRows, batch_rows: int, loss_tokens: int) -> float:
  """Returns the mean loss of `rows` in nats per token, computed `batch_rows` at a time."""
  cross_entropy = weight_sum = 0.0
  padded = rows.pad(-(-len(rows) // batch_rows) * batch_rows)
  for indices in np.split(np.arange(len(padded)), len(padded) // batch_rows):
    with jax.set_mesh(model.mesh):
      batch = put_batch(padded, indices, model.mesh)
      sums = _loss_sums(model.decoder, model.variables, batch, loss_tokens=loss_tokens)
    cross_entropy += float(sums.cross_entropy)
    weight_sum += float(sums.weight_sum)
  return cross_entropy / weight_sum


_loss_sums = jax.jit(next_token_loss, static_argnums=0, static_argnames='loss_tokens')
