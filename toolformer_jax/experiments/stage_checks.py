"""Checks stages by the configurations of models, before the first of them runs."""

import functools
from collections.abc import Callable, Iterable

from toolformer_jax.checkpoints.pretrained import pretrained_config
from toolformer_jax.compression.checks import check_compression, compressed_config
from toolformer_jax.data.corpus import check_corpus
from toolformer_jax.errors import NotLocalError, UserError
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.label_scoring import check_ensemble
from toolformer_jax.evaluation.predict import generation_config, max_prompt_tokens
from toolformer_jax.evaluation.task import ClassificationTask, QuestionTask
from toolformer_jax.evaluation.tasks import check_data_dir, find_tasks
from toolformer_jax.experiments.grid import Cell
from toolformer_jax.experiments.runner import StageRunner
from toolformer_jax.experiments.stages import Annotate, Compress, Evaluate, Finetune, Stage
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.training.adapters import adapted_config
from toolformer_jax.training.finetune import check_fits
from toolformer_jax.training.sources import check_source

# The configuration of the decoder of a model; None if the model is not on this machine.
_DecoderOf = Callable[[str | Stage], DecoderConfig | None]


def check_stages(cells: Iterable[Cell], runner: StageRunner) -> None:
  """Checks what the stages of each cell that are not done would refuse only when they run.

  Raises:
    UserError: a corpus or the folder of the benchmarks is missing, a model cannot be trained or
      made smaller so, there are no adapters for an ensemble, or continuations leave no room for a
      prompt.
  """
  decoder_of: _DecoderOf = functools.cache(lambda model: _decoder(model, decoder_of))
  checked: set[Stage] = set()
  for cell in cells:
    for stage in cell.experiment.stages():
      if stage not in checked and not runner.is_done(stage):
        checked.add(stage)
        try:
          _check(stage, decoder_of)
        except UserError as error:
          raise UserError(f'{cell.factors.source}: {error}') from error


def _decoder(model: str | Stage, decoder_of: _DecoderOf) -> DecoderConfig | None:
  match model:
    case str():
      try:
        return pretrained_config(model, local_files_only=True)
      except NotLocalError:
        return None
    case Finetune(config=config):
      decoder = decoder_of(model.model)
      return decoder and adapted_config(config, decoder)
    case Compress(config=config):
      decoder = decoder_of(model.model)
      return decoder and compressed_config(config, decoder)
  raise TypeError(model.kind)


def _check(stage: Stage, decoder_of: _DecoderOf) -> None:
  match stage:
    case Annotate():
      check_corpus(stage.corpus)
    case Finetune():
      _check_finetune(stage, decoder_of)
    case Compress():
      stage.model_config.check_is_float('compressed')
      if stage.corpus:
        check_corpus(stage.corpus)
      if decoder := decoder_of(stage.model):
        check_compression(stage.config, decoder)
    case Evaluate():
      _check_evaluate(stage, decoder_of(stage.model))


def _check_finetune(stage: Finetune, decoder_of: _DecoderOf) -> None:
  stage.model_config.check_is_float('trained')
  for source in stage.data:
    if isinstance(source, str):
      check_source(source)
  if decoder := decoder_of(stage.model):
    check_fits(stage.config, decoder, decoder_of(stage.teacher) if stage.teacher else None)


def _check_evaluate(stage: Evaluate, decoder: DecoderConfig | None) -> None:
  tasks = find_tasks(stage.tasks)
  check_data_dir(tasks, stage.data_dir)
  if stage.config.ensemble_adapters:
    check_ensemble([])  # no model of an experiment has adapters by name
  for task in tasks:
    if isinstance(task, QuestionTask) and not isinstance(task, ClassificationTask):
      config = generation_config(task, Arm(stage.arm, ''), stage.generation_config, stage.config)
      if decoder:
        max_prompt_tokens(decoder, config)
