"""Fine-tunes a model on texts with calls (paper, section 4) and writes the result."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.checkpoints.orbax import MODEL, STEPS, is_model, save_model
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import adapter_fields
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import write_text
from toolformer_jax.runtime.run_dir import LockedFolder, Shard, software_versions
from toolformer_jax.training.adapters import adapted_config, add_adapter
from toolformer_jax.training.checkpointing import StepCheckpoints
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.departures import finetuning_departures
from toolformer_jax.training.examples import make_examples
from toolformer_jax.training.input_pipeline import Blocks, Epochs, with_row_multiple
from toolformer_jax.training.metrics import read_metrics
from toolformer_jax.training.mixture import build_epoch, check_private_epoch, hold_out
from toolformer_jax.training.packing import (
  Example,
  PackedRows,
  Segment,
  Sequences,
  pack_segments,
  segments_of,
)
from toolformer_jax.training.privacy.sampling import (
  PrivateRows,
  forget_seed,
  one_text_per_row,
  open_private_rows,
)
from toolformer_jax.training.recovery.distillation import check_teacher
from toolformer_jax.training.recovery.masks import check_has_zeros
from toolformer_jax.training.result import FinetuneResult
from toolformer_jax.training.sources import Text
from toolformer_jax.training.stream import (
  ExampleStream,
  StreamedBlocks,
  TextStream,
  check_stream_settings,
)
from toolformer_jax.training.train_loop import mean_loss
from toolformer_jax.training.trainer import train

# Settings that do not change the result: a run may be continued with other values.
_NOT_RESULTS = ('keep', 'max_loss_rise', 'wandb_project')
STREAM = 'stream.json'  # in the folder of a run


def finetune(
    model: LanguageModel, texts: Sequence[Text] | TextStream, *, config: FinetuneConfig,
    output_dir: epath.Path, depends_on: dict[str, Any], mixture: MixtureConfig = MixtureConfig(),
    dev: Sequence[Text] | None = None, without_calls: bool = False,
    syntax: CallSyntax = DEFAULT_SYNTAX, extra_files: Mapping[str, str] | None = None,
    teacher: LanguageModel | None = None, title: str = 'fine-tuning') -> FinetuneResult:
  """Trains `model` on texts with calls, or continues an earlier run in `output_dir`.

  Args:
    model, config, output_dir, depends_on, extra_files, teacher, title: see `finetune_examples`.
    texts: the training data. Those of a stream are read while the model is trained; none of them
      are held out.
    mixture: which texts an epoch holds, and how many are held out if there is no `dev`.
    dev: the texts that the best checkpoint is chosen by.
    without_calls: train on the texts without their calls: the paper's baseline "+ CC". Calls are
      removed last, so that an epoch holds the same texts as with calls.
    syntax: how calls are spelled.

  Raises:
    UserError: see `mixture.check_epoch`, `check_stream_settings` and `finetune_examples`.
  """
  def examples(chosen: Sequence[Text]) -> list[Example]:
    return make_examples(chosen, model.tokenizer, syntax, mask_results=config.mask_results,
                         without_calls=without_calls)
  if isinstance(texts, TextStream):
    check_stream_settings(config, mixture, without_calls)
    epoch, data = None, ExampleStream(texts, model.tokenizer, config)
  else:
    if dev is None and not config.privacy:  # private texts must not choose a checkpoint
      texts, dev = hold_out(texts, mixture)
    epoch = build_epoch(texts, mixture)
    if config.privacy:
      check_private_epoch(texts, epoch)
    data = examples(epoch)
  trained = finetune_examples(
      model=model, examples=data, dev_examples=examples(dev or ()), config=config,
      output_dir=output_dir, depends_on=depends_on, extra_files=extra_files, teacher=teacher,
      title=title)
  metrics = read_metrics(output_dir / 'metrics.jsonl')
  result = FinetuneResult(trained, metrics, output_dir, None if epoch is None else len(epoch),
                          finetuning_departures(config, mixture, model.config),
                          config.privacy.delta if config.privacy else None, config.steps)
  if jax.process_index() == 0:
    write_text(output_dir / 'report.md', result.report)
  return result


def finetune_examples(
    *, model: LanguageModel, examples: Sequence[Example] | ExampleStream, config: FinetuneConfig,
    output_dir: epath.Path, depends_on: dict[str, Any], dev_examples: Sequence[Example] = (),
    extra_files: Mapping[str, str] | None = None, teacher: LanguageModel | None = None,
    title: str = 'fine-tuning') -> LanguageModel | None:
  """Trains `model` on `examples`, or continues an earlier run in `output_dir`.

  `output_dir` gets run.json, metrics.jsonl (a line for each step), steps/ (states to resume from)
  and model/ (the self-contained result). A resumed run has the same losses as one that was never
  interrupted, bit for bit on the same mesh. After SIGTERM it saves its state and returns.

  Args:
    model: the initial model. The variables that are trained are donated, so that two copies of a
      large model never exist. Its mesh may span several processes; each of them calls this function
      with the same arguments.
    examples: the training data.
    config: how the model is trained.
    output_dir: a folder for this run alone.
    depends_on: what else the result depends on, as JSON: the checkpoint, the data. The config, the
      decoder's configuration and a hash of the examples are added to it.
    dev_examples: the result is the checkpoint with the lowest perplexity of these (paper,
      appendix B); without any, the last one.
    extra_files: texts that are written to `output_dir` before the work, by file name.
    teacher: the model of `config.distillation`, which is left as it is.
    title: the name of the run in its progress.

  Returns:
    the trained model; None if the run was asked to stop before its end.

  Raises:
    UserError: no example has a loss, rows are longer than the model allows, the teacher does not
      fit, the model has no zeros to keep or cannot be rounded, the folder belongs to another run,
      or the loss explodes or is not a number.
  """
  model.check_is_float('trained')
  config.check_has_teacher(teacher is not None)
  check_fits(config, model.config, teacher.config if teacher else None)
  if teacher:
    _check_teacher(teacher, model, config)
  if config.keep_zeros:
    check_has_zeros(model.variables['params'])
  model = add_adapter(model, config)
  open_data, config = _prepared_data(model, examples, config, output_dir)
  dev = _pack(model, dev_examples, config) if dev_examples else None
  if config.patience and dev is None:
    raise UserError('FinetuneConfig.patience needs texts to compare checkpoints by: give --dev, or '
                    'set MixtureConfig.dev_texts')
  configuration = {**depends_on, **_configuration(config, examples, dev_examples),
                   'decoder': model.config.record()}
  process = Shard(jax.process_index(), jax.process_count())
  with LockedFolder(output_dir, configuration, software_versions(), process) as folder:
    folder.write_texts(extra_files or {})
    with StepCheckpoints(output_dir / STEPS, config.keep) as checkpoints:
      trained, has_run = train(model, open_data(), dev, config, checkpoints, output_dir, teacher,
                               title)
    if trained and (has_run or not is_model(output_dir / MODEL)):
      save_model(output_dir / MODEL, trained)
    if trained and config.privacy:
      forget_seed(output_dir)
  return trained


def evaluate_loss(model: LanguageModel, examples: Sequence[Example],
                  config: FinetuneConfig) -> float:
  """Returns the mean loss of `examples` in nats per token, packed as for training."""
  rows = _pack(model, examples, config)
  rows_at_once = min(config.batch_items // config.num_microbatches, len(rows))
  return mean_loss(model, rows, max(1, rows_at_once), config.loss_tokens)


def _check_teacher(teacher: LanguageModel, model: LanguageModel, config: FinetuneConfig) -> None:
  """Raises UserError if a model cannot learn from a teacher."""
  if teacher.tokenizer.token_ids_sha256 != model.tokenizer.token_ids_sha256:
    raise UserError('the teacher has another tokenizer than the model, so that its token ids are '
                    'other tokens; take a teacher with the same tokenizer')
  if teacher.mesh != model.mesh:
    raise UserError('the teacher is on other devices than the model: load both with the same '
                    'ModelConfig')
  arrays, others = ({id(x) for x in jax.tree.leaves(one.variables)} for one in (teacher, model))
  if arrays & others and not config.adapter:  # an adapter leaves the weights as they are
    raise UserError('the teacher has the same arrays as the model, which is changed while it is '
                    'trained; load the teacher a second time')


def _prepared_data(
    model: LanguageModel, examples: Sequence[Example] | ExampleStream, config: FinetuneConfig,
    output_dir: epath.Path) -> tuple[Callable[[], Blocks | PrivateRows], FinetuneConfig]:
  """Returns what opens the data once the run's folder is locked, and the configuration with the
  number of steps."""
  if privacy := config.privacy:
    rows = _private_rows(model, examples, config)
    config = config.with_steps(len(rows))
    return functools.partial(open_private_rows, rows, config, privacy, model.mesh, output_dir,
                             is_new=not _has_steps(output_dir)), config
  if isinstance(examples, ExampleStream):
    return functools.partial(_streamed, model, examples, config, output_dir), config
  items, config = _in_memory(model, examples, config)
  return functools.partial(Epochs, items), config


def _in_memory(model: LanguageModel, examples: Sequence[Example], config: FinetuneConfig
               ) -> tuple[PackedRows | Sequences, FinetuneConfig]:
  """Returns what batches are drawn from, and the configuration with the number of steps."""
  items = _items(model, examples, config)
  config = config.with_steps(len(items))
  if isinstance(items, Sequences):
    items = with_row_multiple(items, config, model.mesh)
  return items, config


def _private_rows(model: LanguageModel, examples: Sequence[Example] | ExampleStream,
                  config: FinetuneConfig) -> PackedRows:
  """Returns the texts, each in a row of its own."""
  if isinstance(examples, ExampleStream) or jax.process_count() > 1:
    raise UserError('FinetuneConfig.privacy draws its batches from all texts in the memory of one '
                    'process: neither streams nor --distributed can be used')
  check_row_tokens(config, model.config)
  segments = [segments_of([example], model.tokenizer, config.row_tokens, config.end_of_text)
              for example in examples]
  return one_text_per_row(segments, config.row_tokens)


def _has_steps(output_dir: epath.Path) -> bool:
  """Returns whether a run has saved a state, and is not finished."""
  steps = output_dir / STEPS
  return not is_model(output_dir / MODEL) and steps.is_dir() and any(steps.iterdir())


def _streamed(model: LanguageModel, stream: ExampleStream, config: FinetuneConfig,
              output_dir: epath.Path) -> StreamedBlocks:
  """Returns what batches are drawn from, block after block."""
  blocks = StreamedBlocks(stream.read, config.stream_buffer,
                          lambda chosen: _items(model, chosen, config), output_dir / STREAM)
  if not config.batch_rows:
    blocks.set_row_multiple(config, model.mesh)
  return blocks


def _items(model: LanguageModel, examples: Sequence[Example], config: FinetuneConfig
           ) -> PackedRows | Sequences:
  """Returns what a batch is drawn from: in packed mode rows, or else sequences."""
  return (_pack(model, examples, config) if config.batch_rows
          else Sequences(_segments(model, examples, config), config.row_tokens))


def _pack(model: LanguageModel, examples: Sequence[Example],
          config: FinetuneConfig) -> PackedRows:
  return pack_segments(_segments(model, examples, config), config.row_tokens)


def _segments(model: LanguageModel, examples: Sequence[Example], config: FinetuneConfig
              ) -> list[Segment]:
  check_row_tokens(config, model.config)
  segments = segments_of(examples, model.tokenizer, config.row_tokens, config.end_of_text)
  if not any(any(segment.loss_weights) for segment in segments):
    raise UserError(f'there is nothing to train on: none of the {len(examples)} examples has a '
                    'token whose loss weight is not 0')
  return segments


def check_fits(config: FinetuneConfig, model: DecoderConfig, teacher: DecoderConfig | None = None
               ) -> None:
  """Checks that a model can be trained so, before it is loaded.

  Args:
    config: how it is trained.
    model, teacher: configurations of the model and of its teacher, if it has one.

  Raises:
    UserError: the model has another adapter, rows are too long for it or the teacher, the
      vocabulary of the teacher has another size, or the model's matrices cannot be rounded as
      FinetuneConfig.qat says.
  """
  check_row_tokens(config, adapted_config(config, model))
  if config.qat:
    config.qat.check_model(model)
  if teacher:
    check_teacher(teacher, model, config.row_tokens)


def check_row_tokens(config: FinetuneConfig, model: DecoderConfig) -> None:
  """Raises UserError if a row has more tokens than the model has positions."""
  if config.row_tokens > model.max_tokens:
    raise UserError(f'FinetuneConfig.row_tokens is {config.row_tokens}, but the model has only '
                    f'{model.max_tokens} positions')


def _configuration(config: FinetuneConfig, examples: Sequence[Example] | ExampleStream,
                   dev: Sequence[Example]) -> dict[str, Any]:
  """Returns what the result of a run depends on, as JSON."""
  # Without dev texts, the result does not depend on when states are saved.
  ignored = {*_NOT_RESULTS, 'stream_buffer'}  # a stream describes its own
  if not dev:
    ignored |= {'save_every', 'patience'}
  settings = {name: value for name, value in dataclasses.asdict(config).items()
              if name not in ignored}
  settings['adapter'] = adapter_fields(config.adapter)
  data = ({'stream': examples.describe()} if isinstance(examples, ExampleStream)
          else {'examples_sha256': _sha256(examples)})
  return {'finetune': settings, **data, **({'dev_sha256': _sha256(dev)} if dev else {})}


def _sha256(examples: Sequence[Example]) -> str:
  found = hashlib.sha256()
  for example in examples:
    for values in (np.array(example.token_ids, np.int32),
                   np.array(example.loss_weights, np.float32)):
      found.update(len(values).to_bytes(8, 'little') + values.tobytes())
  return found.hexdigest()
