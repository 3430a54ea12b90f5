"""Fine-tunes a model on texts with calls (paper, section 4) and writes the result."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.checkpoints.orbax import MODEL, STEPS, save_model
from toolformer_jax.errors import UserError
from toolformer_jax.memory import naming_memory
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.progress import Progress
from toolformer_jax.runs import LockedFolder
from toolformer_jax.training.data import batches
from toolformer_jax.training.log import MetricsLog
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.optimizer import learning_rate, make_optimizer
from toolformer_jax.training.packing import Example, PackedRows, pack
from toolformer_jax.training.settings import FinetuneSettings
from toolformer_jax.training.state import (
  Metrics,
  TrainState,
  abstract_state,
  initial_adapters,
  initial_state,
  make_step,
)
from toolformer_jax.training.steps import StepCheckpoints

_NOT_RESULTS = ('save_every', 'keep')  # settings that change no number


def finetune(
    *, model: LanguageModel, examples: Sequence[Example], settings: FinetuneSettings,
    output_dir: pathlib.Path, configuration: dict[str, Any], versions: dict[str, str],
) -> LanguageModel:
  """Trains `model` on `examples`, or goes on where an earlier run in `output_dir` ended.

  `output_dir` gets run.json, metrics.jsonl (a line a step), steps/ (states to resume from) and
  model/ (the self-contained result). A resumed run has the same losses, to the bit, as one that
  was never interrupted.

  Args:
    model: the model to begin with. What is trained of it is used up: after a full fine-tuning its
      parameters are gone, so that two copies of a large model never exist.
    examples: what to learn.
    settings: how.
    output_dir: of this run alone.
    configuration: what else the result depends on, as JSON: the checkpoint, the data. Settings,
      the decoder's configuration and a hash of the examples are added to it.
    versions: of the software, recorded in run.json.

  Returns:
    the trained model.

  Raises:
    UserError: there is nothing to learn, rows are longer than the model allows, the folder is of
      another configuration, or the loss is no longer a number.
  """
  model = _with_adapters(model, settings)
  rows = _pack(model, examples, settings)
  used = {name: value for name, value in dataclasses.asdict(settings).items()
          if name not in _NOT_RESULTS}
  everything = {**configuration, 'finetune': used, 'decoder': dataclasses.asdict(model.config),
                'examples_sha256': _digest(rows)}
  with LockedFolder(output_dir, everything, versions):
    with StepCheckpoints(output_dir / STEPS, settings.keep) as checkpoints:
      trained, news = _train(model, rows, settings, checkpoints, output_dir / 'metrics.jsonl')
    if news or not (output_dir / MODEL).is_dir():
      save_model(output_dir / MODEL, trained)
  return trained


def evaluate_loss(model: LanguageModel, examples: Sequence[Example],
                  settings: FinetuneSettings) -> float:
  """Returns the mean loss of `examples` in nats per token, packed as for training."""
  rows = _pack(model, examples, settings)
  total = weight = 0.0
  for first in range(0, len(rows), settings.batch_rows):
    chosen = rows.take(slice(first, first + settings.batch_rows)).pad(settings.batch_rows)
    with sharding.on_mesh(model.mesh):
      sums = _loss_sums(model.decoder, model.variables, jax.tree.map(model.put_batch, chosen))
    total, weight = total + float(sums.nll), weight + float(sums.weight)
  return total / weight


_loss_sums = functools.partial(jax.jit, static_argnums=0)(next_token_loss)


def _pack(model: LanguageModel, examples: Sequence[Example],
          settings: FinetuneSettings) -> PackedRows:
  if settings.row_tokens > model.config.max_positions:
    raise UserError(f'row_tokens is {settings.row_tokens}, but the model has only '
                    f'{model.config.max_positions} positions')
  rows = pack(examples, model.tokenizer, settings.row_tokens, settings.end_of_text)
  if not rows.weights_RT.any():
    raise UserError(f'there is nothing to learn in {len(examples)} examples')
  return rows


def _digest(rows: PackedRows) -> str:
  return hashlib.sha256(b''.join(array.tobytes() for array in jax.tree.leaves(rows))).hexdigest()


def _with_adapters(model: LanguageModel, settings: FinetuneSettings) -> LanguageModel:
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


def _train(model: LanguageModel, rows: PackedRows, settings: FinetuneSettings,
           checkpoints: StepCheckpoints, metrics_file: pathlib.Path) -> tuple[LanguageModel, bool]:
  """Returns the trained model, and whether any step was left to do."""
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
  step = make_step(decoder, collection, optimizer, abstract, settings)
  frozen = {name: value for name, value in model.variables.items() if name != collection}
  with contextlib.ExitStack() as stack:
    log = stack.enter_context(MetricsLog(metrics_file, start))
    progress = stack.enter_context(Progress('fine-tuning', settings.steps, 'steps', start))
    reporter = _Reporter(settings, checkpoints, log, progress)
    put = functools.partial(jax.tree.map, model.put_batch)
    with sharding.on_mesh(model.mesh), naming_memory('FinetuneSettings.batch_rows'):
      state = _loop(functools.partial(step, frozen), put, rows, state, start, reporter)
  trained = dataclasses.replace(model, variables={**frozen, collection: state.trained})
  return trained, start < settings.steps


def _loop(step, put, rows: PackedRows, state: TrainState, start: int,
          reporter: '_Reporter') -> TrainState:
  """Does the steps that are left and returns the last state."""
  settings = reporter.settings
  order = batches(rows, settings.batch_rows, settings.seed, start)
  for number, batch in zip(range(start + 1, settings.steps + 1), order, strict=False):
    state, metrics = step(state, put(batch))
    reporter.report()  # of the step before: the device is busy with this one meanwhile
    reporter.pending = number, metrics, np.count_nonzero(batch.segments_RT)
    if number % settings.save_every == 0 or number == settings.steps:
      reporter.report()  # a state is saved only after its loss was seen to be a number
      reporter.checkpoints.save(number, state)
  return state


@dataclasses.dataclass
class _Reporter:
  """Tells what a step did, one step late.

  Attributes:
    settings, checkpoints, log, progress: of the run.
    pending: number, metrics and tokens of the step that has not been reported yet.
  """

  settings: FinetuneSettings
  checkpoints: StepCheckpoints
  log: MetricsLog
  progress: Progress
  pending: tuple[int, Metrics, int] | None = None
  _clock: float = dataclasses.field(default_factory=time.monotonic)

  def report(self) -> None:
    """Waits for the pending step and writes its metrics.

    Raises:
      UserError: its loss or gradient is not a number.
    """
    if self.pending is None:
      return
    (number, metrics, tokens), self.pending = self.pending, None
    loss, norm = (float(metrics[name]) for name in ('loss', 'gradient_norm'))
    if not math.isfinite(loss + norm):
      raise UserError(f'step {number} has loss {loss} and gradient norm {norm}; lower the learning '
                      f'rate. The last good checkpoint: {self.checkpoints.last_good()}')
    before, self._clock = self._clock, time.monotonic()
    self.log.write(number, loss=loss, gradient_norm=norm,
                   learning_rate=float(learning_rate(number - 1, self.settings)),
                   tokens_per_s=round(tokens / (self._clock - before), 1))
    self.progress.advance(1, f'loss {loss:.3f}')
