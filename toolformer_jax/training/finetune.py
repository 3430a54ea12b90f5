"""Fine-tunes a model on texts with calls (paper, section 4) and writes the result."""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from toolformer_jax import sharding
from toolformer_jax.checkpoints.orbax import MODEL, STEPS, save_model
from toolformer_jax.errors import UserError
from toolformer_jax.models import flops
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.runtime.oom import naming_memory
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.runtime.run_dir import LockedFolder, Shard
from toolformer_jax.training.checkpointing import StepCheckpoints
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.data import batches, put_rows
from toolformer_jax.training.evaluation import mean_loss
from toolformer_jax.training.interruption import StopSignal
from toolformer_jax.training.log import MetricsLog
from toolformer_jax.training.metrics import open_boards
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.packing import Example, PackedRows, pack
from toolformer_jax.training.train_loop import Reporter, run_steps
from toolformer_jax.training.train_step import (
  TrainState,
  abstract_state,
  initial_adapters,
  initial_state,
  make_step,
)

# Settings that change no number: whether a folder may be gone on with does not depend on them.
_NOT_RESULTS = ('keep', 'max_loss_rise', 'wandb_project')


def finetune(
    *, model: LanguageModel, examples: Sequence[Example], settings: FinetuneConfig,
    output_dir: pathlib.Path, configuration: dict[str, Any], versions: dict[str, str],
    dev_examples: Sequence[Example] = (),
) -> LanguageModel | None:
  """Trains `model` on `examples`, or goes on where an earlier run in `output_dir` ended.

  `output_dir` gets run.json, metrics.jsonl (a line a step), steps/ (states to resume from) and
  model/ (the self-contained result). A resumed run has the same losses, to the bit on the same
  mesh, as one that was never interrupted. SIGTERM makes it save its state and return.

  Args:
    model: the model to begin with. What is trained of it is used up: after a full fine-tuning its
      parameters are gone, so that two copies of a large model never exist. Its mesh may span
      several processes; each of them calls this function with the same arguments.
    examples: what to learn.
    settings: how.
    output_dir: of this run alone.
    configuration: what else the result depends on, as JSON: the checkpoint, the data. Settings,
      the decoder's configuration and a hash of the examples are added to it.
    versions: of the software, recorded in run.json.
    dev_examples: the result is the checkpoint with the lowest perplexity of these (paper,
      appendix B); without any, the last one.

  Returns:
    the trained model; None if the run was asked to stop before its end.

  Raises:
    UserError: there is nothing to learn, rows are longer than the model allows, the folder is of
      another configuration, or the loss explodes or is no longer a number.
  """
  model = _with_adapters(model, settings)
  rows = _pack(model, examples, settings)
  dev = _pack(model, dev_examples, settings) if dev_examples else None
  if settings.patience and dev is None:
    raise UserError('FinetuneConfig.patience needs texts to judge checkpoints by: give --dev, or '
                    'set MixtureConfig.dev_texts')
  described = {**configuration, **_described(settings, rows, dev),
               'decoder': dataclasses.asdict(model.config)}
  process = Shard(jax.process_index(), jax.process_count())
  with LockedFolder(output_dir, described, versions, process):
    with StepCheckpoints(output_dir / STEPS, settings.keep) as checkpoints:
      trained, news = _train(model, rows, dev, settings, checkpoints, output_dir)
    if trained and (news or not (output_dir / MODEL).is_dir()):
      save_model(output_dir / MODEL, trained)
  return trained


def evaluate_loss(model: LanguageModel, examples: Sequence[Example],
                  settings: FinetuneConfig) -> float:
  """Returns the mean loss of `examples` in nats per token, packed as for training."""
  return mean_loss(model, _pack(model, examples, settings), settings.batch_rows,
                   settings.loss_tokens)


def _described(settings: FinetuneConfig, rows: PackedRows, dev: PackedRows | None
               ) -> dict[str, Any]:
  """Returns what of a run decides its result, as JSON."""
  # Without dev texts it does not matter when checkpoints are made.
  ignored = _NOT_RESULTS if dev else (*_NOT_RESULTS, 'save_every', 'patience')
  used = {name: value for name, value in dataclasses.asdict(settings).items()
          if name not in ignored}
  digests = {'examples_sha256': _digest(rows)} | ({'dev_sha256': _digest(dev)} if dev else {})
  return {'finetune': used, **digests}


def _pack(model: LanguageModel, examples: Sequence[Example],
          settings: FinetuneConfig) -> PackedRows:
  if settings.row_tokens > model.config.max_positions:
    raise UserError(f'row_tokens is {settings.row_tokens}, but the model has only '
                    f'{model.config.max_positions} positions')
  rows = pack(examples, model.tokenizer, settings.row_tokens, settings.end_of_text)
  if not rows.weights_RT.any():
    raise UserError(f'there is nothing to learn in {len(examples)} examples')
  return rows


def _digest(rows: PackedRows) -> str:
  return hashlib.sha256(b''.join(array.tobytes() for array in jax.tree.leaves(rows))).hexdigest()


def _with_adapters(model: LanguageModel, settings: FinetuneConfig) -> LanguageModel:
  """Returns the model with the adapters that `settings` ask for; those it has are kept."""
  asked = (settings.lora_rank, settings.lora_alpha)
  has = (model.config.lora_rank, model.config.lora_alpha)
  if model.config.lora_rank:
    if asked != has:
      raise UserError(f'the model has adapters of rank {has[0]} and alpha {has[1]}; fine-tune it '
                      'with the same lora_rank and lora_alpha')
    return model
  if not settings.lora_rank:
    return model
  decoder = model.decoder.clone(
      config=model.config.replace(lora_rank=asked[0], lora_alpha=asked[1]))
  where = sharding.state_shardings(abstract_variables(decoder)['lora'], model.mesh)
  adapters = initial_adapters(decoder, where, settings.seed)
  variables = {**model.variables, 'lora': adapters}
  return dataclasses.replace(model, decoder=decoder, variables=variables)


def _train(model: LanguageModel, rows: PackedRows, dev: PackedRows | None,
           settings: FinetuneConfig, checkpoints: StepCheckpoints, output_dir: pathlib.Path,
           ) -> tuple[LanguageModel | None, bool]:
  """Returns the trained model, if the run has ended, and whether any step was left to do."""
  collection = 'lora' if settings.lora_rank else 'params'
  decoder = model.decoder.clone(remat=settings.remat, dropout=settings.dropout)
  optimizer = make_optimizer(settings)
  abstract = abstract_state(decoder, collection, optimizer, model.mesh)
  state = checkpoints.restore(abstract)
  if state is None:
    state = initial_state(abstract, model.variables[collection], optimizer)
  else:
    jax.tree.map(lambda array: array.delete(), model.variables[collection])
  start = int(state.step)
  frozen = {name: value for name, value in model.variables.items() if name != collection}
  def with_trained(state: TrainState) -> LanguageModel:
    return dataclasses.replace(model, variables={**frozen, collection: state.trained})
  def dev_loss(state: TrainState) -> float:
    return mean_loss(with_trained(state), dev, settings.batch_rows, settings.loss_tokens)
  step = make_step(decoder, collection, optimizer, abstract, settings)
  order = batches(len(rows), settings.batch_rows, settings.seed, start)
  with (
      _reporter(model, settings, checkpoints, output_dir, start) as reporter, StopSignal() as stop,
      sharding.on_mesh(model.mesh),
      naming_memory('FinetuneConfig.loss_tokens or batch_rows, or micro_batches larger')):
    state, ended = run_steps(
        state, start, (put_rows(rows, numbers, model.mesh) for numbers in order),
        step=functools.partial(step, frozen), dev_loss=dev_loss if dev else None,
        settings=settings, checkpoints=checkpoints, reporter=reporter, stop=stop)
  if not ended:
    return None, True
  news = int(state.step) > start
  if dev and checkpoints.best_step() not in (None, int(state.step)):
    state = checkpoints.restore_best(abstract)
  return with_trained(state), news


@contextlib.contextmanager
def _reporter(model: LanguageModel, settings: FinetuneConfig, checkpoints: StepCheckpoints,
              output_dir: pathlib.Path, start: int):
  """Opens what tells about a run; of several processes the first one writes."""
  devices = model.mesh.devices.flatten().tolist()
  flops_per_token = flops.training_flops(model.config, settings.row_tokens) / settings.row_tokens
  with contextlib.ExitStack() as stack:
    log = None
    if jax.process_index() == 0:
      boards = open_boards(output_dir, start, settings.wandb_project)
      log = stack.enter_context(MetricsLog(output_dir / 'metrics.jsonl', start, boards))
    progress = stack.enter_context(Progress('fine-tuning', settings.steps, 'steps', start))
    yield Reporter(
        settings, checkpoints, progress, log,
        lambda tokens_per_s: flops.utilization(tokens_per_s * flops_per_token, devices))
