"""Runs the stages of experiments, each once, in folders that are named by what they depend on.

    stages/annotate-0a1b2c3d4e5f/     the folder that `annotate` writes, and stage.json
    stages/finetune-.../, stages/compress-.../, stages/evaluate-.../

A stage is done when its stage.json exists. One that was interrupted continues where it stopped, as
the commands do. Processes that need the same stage wait for each other.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from etils import epath

from toolformer_jax import api
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.checkpoints.pretrained import pretrained_config
from toolformer_jax.data.corpus import corpus_hash, read_corpus
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.tasks import trainable_task
from toolformer_jax.experiments.stages import (
  Annotate,
  Compress,
  Evaluate,
  Finetune,
  Stage,
  TaskSplit,
)
from toolformer_jax.experiments.task_data import task_rows
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.flops import num_adapter_parameters, num_parameters
from toolformer_jax.runtime import locks
from toolformer_jax.runtime.paths import make_directory
from toolformer_jax.runtime.run_dir import read_json, write_json
from toolformer_jax.training.sources import TaskRow

log = logging.getLogger(__name__)
_RECORD = 'stage.json'
_COMPRESSED = 'model'  # the checkpoint in the folder of a compression


class StageRunner:
  """Runs stages below the folder `root`."""

  def __init__(self, root: epath.Path):
    self._root = root

  def folder(self, stage: Stage) -> epath.Path:
    """Returns the folder of a stage."""
    return self._root / 'stages' / stage.key

  def is_done(self, stage: Stage) -> bool:
    """Tells whether the result of a stage exists."""
    return (self.folder(stage) / _RECORD).exists()

  def other_annotations(self, stage: Annotate) -> list[epath.Path]:
    """Returns the folders of all other annotations that are done and can be read, in order."""
    folders = sorted(path for path in (self._root / 'stages').iterdir()
                     if path.name.startswith(f'{stage.kind}-') and path != self.folder(stage))
    return [path for path in folders if (path / _RECORD).exists() and _is_readable(path)]

  def record(self, stage: Stage) -> dict[str, Any]:
    """Returns what is known of a stage that is done: its seconds, parameters, texts.

    If an earlier process had begun it, it is `continued`, and the seconds are those of the last.
    """
    return read_json(self.folder(stage) / _RECORD)

  def run(self, stage: Stage) -> epath.Path:
    """Runs a stage and those that it depends on, unless they are done; returns its folder.

    Raises:
      UserError: a stage failed.
      KeyboardInterrupt: a training was asked to stop; its state is saved.
    """
    for one in stage.in_order():
      if not self.is_done(one):
        self._run_alone(one)
    return self.folder(stage)

  def _run_alone(self, stage: Stage) -> None:
    """Runs one stage, whose inputs are done; waits for another process that runs the same."""
    folder = self.folder(stage)
    make_directory(folder)
    running = folder / '.running'
    if locks.is_held(running):
      log.info('waiting for another process, which runs %s', stage.key)
    with locks.lock(running):
      if self.is_done(stage):
        return
      log.info('running %s', stage.key)
      begun_before = (folder / 'run.json').exists()
      begin = time.monotonic()
      found = _RUN[type(stage)](self, stage, folder)
      write_json(folder / _RECORD, {
          'seconds': round(time.monotonic() - begin, 1),
          **({'continued': True} if begun_before else {}), **found})

  def checkpoint(self, model: str | Finetune | Compress) -> str:
    """Returns the checkpoint that a stage reads."""
    if isinstance(model, str):
      return model
    return str(self.folder(model) / _COMPRESSED if isinstance(model, Compress)
               else self.folder(model))


def _is_readable(run: epath.Path) -> bool:
  """Tells whether an annotation can start from the run in a folder."""
  try:
    return RunReader(run).settings is not None
  except UserError as error:
    log.warning('%s is not used: %s', run, error)
    return False


def _annotate(runner: StageRunner, stage: Annotate, folder: epath.Path) -> dict[str, Any]:
  corpus = stage.corpus, stage.corpus_config, stage.toolbox.media
  # Other thresholds, for instance, need no other samples.
  result = api.annotate(
      runner.checkpoint(stage.model), lambda: read_corpus(*corpus), tools=stage.tools,
      output_dir=folder, config=stage.config, tool_configs=stage.tool_configs,
      model_config=stage.model_config, executor_config=stage.executor_config,
      toolbox=stage.toolbox, syntax=stage.syntax, start_from=runner.other_annotations(stage),
      depends_on={'corpus': corpus_hash(*corpus)})
  return {'texts': len(result.annotated)}


def _finetune(runner: StageRunner, stage: Finetune, folder: epath.Path) -> dict[str, Any]:
  texts = api.as_texts([text for one in stage.data for text in _texts(runner, one)],
                       stage.corpus_config)
  if not texts:
    raise UserError('no call was kept, so that there is nothing to learn')
  model = api.load_model(runner.checkpoint(stage.model), config=stage.model_config)
  teacher = None
  if stage.teacher is not None:
    teacher = api.load_model(runner.checkpoint(stage.teacher), config=stage.model_config)
  result = api.finetune(
      model, texts, output_dir=folder, config=stage.config, mixture=stage.mixture,
      without_calls=stage.without_calls, syntax=stage.syntax, teacher=teacher)
  if not result.finished:
    raise KeyboardInterrupt  # a signal asked for it, and asks the whole grid to stop
  return {'texts': result.texts, **_training_record(stage, model.config, result.metrics)}


def _texts(runner: StageRunner, data: str | Annotate | TaskSplit) -> Iterable[str | TaskRow]:
  """Returns what `api.as_texts` reads of one item of the data of a training."""
  if isinstance(data, TaskSplit):
    task = trainable_task(data.task, 'ExperimentConfig.train_tasks', data.data_dir)
    return task_rows(task, data.data_dir)
  return [data if isinstance(data, str) else str(runner.folder(data))]


def _training_record(stage: Finetune, model: DecoderConfig, metrics: Iterable[Mapping[str, Any]]
                     ) -> dict[str, Any]:
  """Returns what a training took, for the report; `metrics` are those of its steps."""
  adapted = model.replace(adapter=stage.config.adapter)
  steps = list(metrics)
  sizes = [step['step_bytes'] for step in steps if 'step_bytes' in step]
  return {
      'parameters': num_parameters(model),
      'trained': num_adapter_parameters(adapted) if adapted.adapter else num_parameters(model),
      'train_seconds': round(math.fsum(step['step_s'] for step in steps), 1),
      **({'step_bytes': max(sizes)} if sizes else {})}


def _compress(runner: StageRunner, stage: Compress, folder: epath.Path) -> dict[str, Any]:
  output_dir = folder / _COMPRESSED
  if output_dir.exists():
    output_dir.rmtree()  # of a run that was interrupted
  texts = None
  if stage.corpus:
    texts_alone = dataclasses.replace(stage.corpus_config, media=False)
    texts = (one.text for one in read_corpus(stage.corpus, texts_alone))
  model = api.load_model(runner.checkpoint(stage.model), config=stage.model_config)
  result = api.compress(model, texts, output_dir=output_dir, config=stage.config)
  return {'parameters': result.parameters[1], 'nonzero': result.nonzero,
          'weight_bytes': result.weight_bytes}


def _evaluate(runner: StageRunner, stage: Evaluate, folder: epath.Path) -> dict[str, Any]:
  result = api.evaluate(
      stage.tasks, arms={stage.arm: runner.checkpoint(stage.model)}, data_dir=stage.data_dir,
      tools=stage.tools or None, limit=stage.limit, output_dir=folder, config=stage.config,
      generation_config=stage.generation_config, engine_config=stage.engine_config,
      model_config=stage.model_config, executor_config=stage.executor_config,
      toolbox=stage.toolbox, syntax=stage.syntax)
  if result.failed:
    result.raise_failures()
  config = pretrained_config(runner.checkpoint(stage.model), local_files_only=True)
  return {'parameters': num_parameters(config)}


_RUN: dict[type[Stage], Callable[[StageRunner, Any, epath.Path], dict[str, Any]]] = {
    Annotate: _annotate, Finetune: _finetune, Compress: _compress, Evaluate: _evaluate}
