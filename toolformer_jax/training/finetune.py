"""Fine-tunes a model on texts with calls (paper, section 4) and writes the result."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from toolformer_jax import sharding
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.checkpoints.orbax import MODEL, STEPS, save_model
from toolformer_jax.errors import UserError
from toolformer_jax.models import flops
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.runtime.oom import explain_out_of_memory
from toolformer_jax.runtime.progress import Progress
from toolformer_jax.runtime.run_dir import LockedFolder, Shard, software_versions
from toolformer_jax.training.checkpointing import StepCheckpoints
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.data import (
  Text,
  batches,
  examples_of,
  hold_out,
  mixture_of,
  put_rows,
)
from toolformer_jax.training.metrics import MetricsLog, open_metric_writers
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.packing import Example, PackedRows, pack
from toolformer_jax.training.train_loop import Reporter, StopSignal, mean_loss, run_steps
from toolformer_jax.training.train_step import (
  TrainState,
  abstract_state,
  initial_adapters,
  initial_state,
  make_step,
)

# Settings that change no number: a run may be continued with other values.
_NOT_RESULTS = ('keep', 'max_loss_rise', 'wandb_project')


@dataclass(frozen=True)
class FinetuneResult:
  """The outcome of a fine-tuning run.

  Attributes:
    model: the trained model; None if the run was asked to stop before its end.
    metrics: of every step: loss, gradient norm, learning rate, seconds, and so on.
    output_dir: the folder of the run; None if it had none.
  """

  model: LanguageModel | None
  metrics: tuple[dict[str, Any], ...]
  output_dir: pathlib.Path | None

  @property
  def finished(self) -> bool:
    """Whether the run has ended; else the same call continues it."""
    return self.model is not None

  def to_records(self) -> list[dict[str, Any]]:
    """Returns the metrics as a list of dicts, for a data frame."""
    return list(self.metrics)

  def __repr__(self) -> str:
    losses = [record['loss'] for record in self.metrics]
    trend = f', loss {losses[0]:.3f} to {losses[-1]:.3f}' if losses else ''
    return f'FinetuneResult({len(losses)} steps{trend})'


def finetune(
    model: LanguageModel, texts: Sequence[Text], *, config: FinetuneConfig,
    output_dir: pathlib.Path, depends_on: dict[str, Any], mixture: MixtureConfig = MixtureConfig(),
    dev: Sequence[Text] | None = None, without_calls: bool = False,
    syntax: CallSyntax = DEFAULT_SYNTAX,
) -> FinetuneResult:
  """Trains `model` on texts with calls, or continues an earlier run in `output_dir`.

  Args:
    model, config, output_dir, depends_on: see `finetune_examples`.
    texts: what to learn.
    mixture: which texts an epoch holds, and how many are held out if there is no `dev`.
    dev: texts to choose the best checkpoint by.
    without_calls: train on the texts without their calls: the paper's baseline "+ CC".
    syntax: how calls are spelled.

  Raises:
    UserError: there is no text, or see `finetune_examples`.
  """
  if not texts:
    raise UserError('there is no text to learn from; lower tau_f, or annotate more')
  if dev is None:
    texts, dev = hold_out(texts, mixture)
  def examples(some: Sequence[Text]) -> list[Example]:
    return examples_of(some, model.tokenizer, syntax, mask_results=config.mask_results,
                       without_calls=without_calls)
  trained = finetune_examples(
      model=model, examples=examples(mixture_of(texts, mixture)), dev_examples=examples(dev),
      config=config, output_dir=output_dir, depends_on=depends_on)
  lines = (output_dir / 'metrics.jsonl').read_text('utf-8').splitlines()
  return FinetuneResult(trained, tuple(map(json.loads, lines)), output_dir)


def finetune_examples(
    *, model: LanguageModel, examples: Sequence[Example], config: FinetuneConfig,
    output_dir: pathlib.Path, depends_on: dict[str, Any], dev_examples: Sequence[Example] = (),
) -> LanguageModel | None:
  """Trains `model` on `examples`, or continues an earlier run in `output_dir`.

  `output_dir` gets run.json, metrics.jsonl (a line for each step), steps/ (states to resume from)
  and model/ (the self-contained result). A resumed run has the same losses, to the bit on the same
  mesh, as one that was never interrupted. SIGTERM makes it save its state and return.

  Args:
    model: the model to begin with. What is trained of it is donated, so that two copies of a large
      model never exist. Its mesh may span several processes; each of them calls this function with
      the same arguments.
    examples: what to learn.
    config: how.
    output_dir: of this run alone.
    depends_on: what else the result depends on, as JSON: the checkpoint, the data. The config, the
      decoder's configuration and a hash of the examples are added to it.
    dev_examples: the result is the checkpoint with the lowest perplexity of these (paper,
      appendix B); without any, the last one.

  Returns:
    the trained model; None if the run was asked to stop before its end.

  Raises:
    UserError: there is nothing to learn, rows are longer than the model allows, the folder belongs
      to another run, or the loss explodes or is no longer a number.
  """
  model = _with_adapters(model, config)
  rows = _pack(model, examples, config)
  dev = _pack(model, dev_examples, config) if dev_examples else None
  if config.patience and dev is None:
    raise UserError('FinetuneConfig.patience needs texts to judge checkpoints by: give --dev, or '
                    'set MixtureConfig.dev_texts')
  described = {**depends_on, **_described(config, rows, dev),
               'decoder': dataclasses.asdict(model.config)}
  process = Shard(jax.process_index(), jax.process_count())
  with LockedFolder(output_dir, described, software_versions(), process):
    with StepCheckpoints(output_dir / STEPS, config.keep) as checkpoints:
      trained, has_run = _train(model, rows, dev, config, checkpoints, output_dir)
    if trained and (has_run or not (output_dir / MODEL).is_dir()):
      save_model(output_dir / MODEL, trained)
  return trained


def evaluate_loss(model: LanguageModel, examples: Sequence[Example],
                  config: FinetuneConfig) -> float:
  """Returns the mean loss of `examples` in nats per token, packed as for training."""
  rows = _pack(model, examples, config)
  rows_at_once = min(config.batch_rows // config.micro_batches, len(rows))
  return mean_loss(model, rows, rows_at_once, config.loss_tokens)


def _described(config: FinetuneConfig, rows: PackedRows, dev: PackedRows | None
               ) -> dict[str, Any]:
  """Returns what the result of a run depends on, as JSON."""
  # Without dev texts it does not matter when states are saved.
  ignored = _NOT_RESULTS if dev else (*_NOT_RESULTS, 'save_every', 'patience')
  used = {name: value for name, value in dataclasses.asdict(config).items()
          if name not in ignored}
  digests = {'examples_sha256': _digest(rows)} | ({'dev_sha256': _digest(dev)} if dev else {})
  return {'finetune': used, **digests}


def _pack(model: LanguageModel, examples: Sequence[Example],
          config: FinetuneConfig) -> PackedRows:
  if config.row_tokens > model.config.max_positions:
    raise UserError(f'row_tokens is {config.row_tokens}, but the model has only '
                    f'{model.config.max_positions} positions')
  rows = pack(examples, model.tokenizer, config.row_tokens, config.end_of_text)
  if not rows.weights_RT.any():
    raise UserError(f'there is nothing to learn in {len(examples)} examples')
  return rows


def _digest(rows: PackedRows) -> str:
  return hashlib.sha256(b''.join(array.tobytes() for array in jax.tree.leaves(rows))).hexdigest()


def _with_adapters(model: LanguageModel, config: FinetuneConfig) -> LanguageModel:
  """Returns the model with the adapters that `config` ask for; those it has are kept."""
  asked = (config.lora_rank, config.lora_alpha)
  has = (model.config.lora_rank, model.config.lora_alpha)
  if model.config.lora_rank:
    if asked != has:
      raise UserError(f'the model has adapters of rank {has[0]} and alpha {has[1]}; fine-tune it '
                      'with the same lora_rank and lora_alpha')
    return model
  if not config.lora_rank:
    return model
  decoder = model.decoder.clone(
      config=model.config.replace(lora_rank=asked[0], lora_alpha=asked[1]))
  where = sharding.state_shardings(abstract_variables(decoder)['lora'], model.mesh)
  adapters = initial_adapters(decoder, where, config.seed)
  variables = {**model.variables, 'lora': adapters}
  return dataclasses.replace(model, decoder=decoder, variables=variables)


def _train(model: LanguageModel, rows: PackedRows, dev: PackedRows | None,
           config: FinetuneConfig, checkpoints: StepCheckpoints, output_dir: pathlib.Path,
           ) -> tuple[LanguageModel | None, bool]:
  """Returns the trained model, if the run has ended, and whether any step was done."""
  collection = 'lora' if config.lora_rank else 'params'
  decoder = model.decoder.clone(remat=config.remat, dropout=config.dropout)
  optimizer = make_optimizer(config)
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
    rows_at_once = config.batch_rows // config.micro_batches
    return mean_loss(with_trained(state), dev, rows_at_once, config.loss_tokens)
  step = make_step(decoder, collection, optimizer, abstract, config)
  order = batches(len(rows), config.batch_rows, config.seed, start)
  with (
      _reporter(model, config, checkpoints, output_dir, start) as reporter, StopSignal() as stop,
      jax.set_mesh(model.mesh),
      explain_out_of_memory('lower FinetuneConfig.loss_tokens or row_tokens, or raise '
                            'micro_batches')):
    state, ended = run_steps(
        state, start, (put_rows(rows, numbers, model.mesh) for numbers in order),
        step=functools.partial(step, frozen), dev_loss=dev_loss if dev else None,
        config=config, checkpoints=checkpoints, reporter=reporter, stop=stop)
  if not ended:
    return None, True
  has_run = int(state.step) > start
  if dev and checkpoints.best_step() not in (None, int(state.step)):
    state = checkpoints.restore_best(abstract)
  return with_trained(state), has_run


@contextlib.contextmanager
def _reporter(model: LanguageModel, config: FinetuneConfig, checkpoints: StepCheckpoints,
              output_dir: pathlib.Path, start: int):
  """Opens the reporter of a run; of several processes the first one writes."""
  devices = model.mesh.devices.flatten().tolist()
  flops_per_token = flops.training_flops(model.config, config.row_tokens) / config.row_tokens
  with contextlib.ExitStack() as stack:
    log = None
    if jax.process_index() == 0:
      writers = open_metric_writers(output_dir, start, config.wandb_project)
      log = stack.enter_context(MetricsLog(output_dir / 'metrics.jsonl', start, writers))
    progress = stack.enter_context(Progress('fine-tuning', config.steps, 'steps', start))
    yield Reporter(
        config, checkpoints, progress, log,
        lambda tokens_per_s: flops.utilization(tokens_per_s * flops_per_token, devices))
