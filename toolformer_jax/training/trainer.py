"""Sets up a training run: state, step, batches, metrics; and picks its best checkpoint."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from etils import epath

from toolformer_jax.models import flops
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.oom import explain_out_of_memory
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.training.checkpointing import StepCheckpoints
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.input_pipeline import Blocks, Picks, batch_picks, put_batch
from toolformer_jax.training.metrics import MetricsLog, open_metric_writers
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.packing import PackedRows
from toolformer_jax.training.preemption import StopSignal
from toolformer_jax.training.privacy.sampling import PrivateRows
from toolformer_jax.training.recovery.masks import nonzero_masks
from toolformer_jax.training.recovery.quantization import rounded_params
from toolformer_jax.training.reporter import Reporter
from toolformer_jax.training.train_loop import mean_loss, train_loop
from toolformer_jax.training.train_step import (
  FrozenVariables,
  Metrics,
  TrainState,
  TrainStep,
  abstract_train_state,
  init_train_state,
  make_train_step,
)

_LESS_MEMORY = 'lower FinetuneConfig.loss_tokens or row_tokens, or raise num_microbatches'


def train(model: LanguageModel, data: Blocks | PrivateRows, dev: PackedRows | None,
          config: FinetuneConfig, checkpoints: StepCheckpoints, output_dir: epath.Path,
          teacher: LanguageModel | None, title: str) -> tuple[LanguageModel | None, bool]:
  """Trains `model`, or continues from the newest of `checkpoints`.

  Args:
    model: the initial model, with the adapter of `config`; what is trained of it is donated.
    data: what batches are drawn from.
    dev: the rows that the best checkpoint is chosen by; None for the last checkpoint.
    config: how the model is trained.
    checkpoints: the states of the run.
    output_dir: gets the metrics.
    teacher, title: as for `finetune.finetune_examples`; the teacher is on the same mesh.

  Returns:
    the trained model, None if the run was asked to stop; and whether any step was done.

  Raises:
    UserError: the loss explodes or is not a number, or the device has too little memory.
  """
  collection = ADAPTER if config.adapter else 'params'
  decoder = model.decoder.clone(remat_policy=config.remat_policy, dropout=config.dropout)
  optimizer = make_optimizer(config)
  abstract = abstract_train_state(decoder, collection, optimizer, model.mesh)
  # Of the checkpoint and not of the newest state, in which others may be zero by chance.
  masks = nonzero_masks(model.variables['params']) if config.keep_zeros else None
  state = _newest_state(checkpoints, abstract, model.variables[collection], optimizer)
  start_step = int(state.step)
  frozen = {name: value for name, value in model.variables.items() if name != collection}
  def with_params(state: TrainState) -> LanguageModel:
    # The source is cleared: these are no longer the weights of the checkpoint that it names.
    return dataclasses.replace(model, variables={**frozen, collection: state.params}, source='')
  rows_at_once = (config.batch_rows or data.row_multiple) // config.num_microbatches
  rounded = _rounding(config, abstract)
  def dev_loss(dev: PackedRows, state: TrainState) -> float:
    return mean_loss(with_params(rounded(state)), dev, rows_at_once, config.loss_tokens)
  def put(picks: Picks) -> PackedRows:
    rows = data.rows(picks)
    return put_batch(rows, np.arange(len(rows)), model.mesh)
  picks, noise_key = _draws(data, config, start_step)
  train_step, trace = _given(
      make_train_step(decoder, collection, optimizer, abstract, config,
                      teacher.decoder if teacher else None),
      frozen, noise_key=noise_key, masks=masks, teacher=teacher.variables if teacher else None)
  with (
      _reporter(model, data, config, checkpoints, output_dir, start_step, teacher, title
                ) as reporter, StopSignal() as stop, jax.set_mesh(model.mesh),
      explain_out_of_memory(_LESS_MEMORY)):
    state, finished = train_loop(
        state, start_step, map(put, picks),
        train_step=train_step, trace=trace,
        dev_loss=functools.partial(dev_loss, dev) if dev else None,
        config=config, checkpoints=checkpoints, reporter=reporter, stop=stop, advice=_LESS_MEMORY)
  if not finished:
    return None, True
  has_run = int(state.step) > start_step
  if dev and checkpoints.best_step() not in (None, int(state.step)):
    state = checkpoints.restore_best(abstract)
  return with_params(state), has_run


def _given(train_step: TrainStep, frozen: FrozenVariables, **given: Any
           ) -> tuple[Callable[..., tuple[TrainState, Metrics]], Callable[..., jax.stages.Traced]]:
  """Returns functions of state and batch: the training step, and one that traces it."""
  return (functools.partial(train_step, frozen, **given),
          functools.partial(train_step.trace, frozen, **given))


def _newest_state(checkpoints: StepCheckpoints, abstract: TrainState, params: Any,
                  optimizer: optax.GradientTransformationExtraArgs) -> TrainState:
  """Returns the newest saved state, or the first one, which holds `params` itself."""
  state = checkpoints.restore(abstract)
  if state is None:
    return init_train_state(abstract, params, optimizer)
  jax.tree.map(lambda array: array.delete(), params)
  return state


def _rounding(config: FinetuneConfig, abstract: TrainState) -> Callable[[TrainState], TrainState]:
  """Returns a function that rounds the parameters of a state as a training step does."""
  if (qat := config.qat) is None:
    return lambda state: state
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract.params)
  round_params = jax.jit(functools.partial(rounded_params, config=qat), out_shardings=shardings)
  return lambda state: state._replace(params=round_params(state.params))


def _draws(data: Blocks | PrivateRows, config: FinetuneConfig, start_step: int
           ) -> tuple[Iterator[Picks], jax.Array | None]:
  """Returns what each batch holds, and the key of the noise of private training."""
  if isinstance(data, PrivateRows):
    return data.picks(start_step), data.noise_key
  return batch_picks(data, config.batch_items, config.seed, start_step), None


def _flops_per_token(model: LanguageModel, teacher: LanguageModel | None, row_tokens: int
                     ) -> float:
  """Returns the operations of a step, per token: those of training, and of the teacher."""
  total = flops.training_flops(model.config, row_tokens)
  if teacher:
    total += flops.forward_flops(teacher.config, row_tokens, logits=row_tokens)
  return total / row_tokens


@contextlib.contextmanager
def _reporter(model: LanguageModel, data: Blocks | PrivateRows, config: FinetuneConfig,
              checkpoints: StepCheckpoints, output_dir: epath.Path, start_step: int,
              teacher: LanguageModel | None, title: str) -> Iterator[Reporter]:
  """Opens the reporter of a run; of several processes only the first writes metrics."""
  devices = model.mesh.devices.flatten().tolist()
  flops_per_token = _flops_per_token(model, teacher, config.row_tokens)
  is_protected = config.privacy and config.privacy.noise_multiplier
  with contextlib.ExitStack() as stack:
    log = None
    if jax.process_index() == 0:
      writers = open_metric_writers(output_dir, start_step, config.wandb_project)
      log = stack.enter_context(MetricsLog(output_dir / 'metrics.jsonl', start_step, writers))
    progress = stack.enter_context(Progress(title, config.steps, 'steps', start_step))
    yield Reporter(
        config, checkpoints, progress, log, data.epoch_items,
        lambda tokens_per_s: flops.utilization(tokens_per_s * flops_per_token, devices),
        data.epsilon if is_protected and isinstance(data, PrivateRows) else None)
