"""The results of experiments, read from the folders of their evaluations."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from toolformer_jax import api
from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.evaluation import tables
from toolformer_jax.evaluation.arms import TITLES
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.experiments import comparison
from toolformer_jax.experiments.grid import Cell
from toolformer_jax.experiments.runner import StageRunner
from toolformer_jax.experiments.stages import Compress, Evaluate, Finetune, Stage
from toolformer_jax.runtime.run_dir import read_json

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Training:
  """What the last training of a cell's model took.

  Attributes:
    weights: number of weights that were trained.
    seconds: duration of all steps, with the compilation in the first.
    step_bytes: memory of a step on each device; None if the compiler does not say.
  """

  weights: int
  seconds: float
  step_bytes: int | None


@dataclass(frozen=True)
class ModelSize:
  """How large a model is.

  Attributes:
    parameters: number of its weights.
    nonzero: number of those that are not zero; all of a model that was not pruned.
    weight_bytes: size of its weights: of files of few bits, or else in float32.
  """

  parameters: int
  nonzero: int
  weight_bytes: int


@dataclass(frozen=True)
class CellResult:
  """What a cell of a grid found.

  Attributes:
    cell: the cell.
    records: the scored predictions of each task and arm, as JSON objects.
    models: for each arm the key of the first training of its model, or its checkpoint.
    sizes: of the model of each arm that was evaluated.
    training: of the arm toolformer, or of another one; None if nothing was trained.
    skipped: why tasks were not evaluated, by name.
    sources: number, files and split of the examples of each task, by its name.
    failed: why an arm on a task failed, by `task/arm`.
    failure: why the cell is not complete; '' if it is.
  """

  cell: Cell
  records: Mapping[tuple[str, str], Records] = dataclasses.field(default_factory=dict)
  models: Mapping[str, str] = dataclasses.field(default_factory=dict)
  sizes: Mapping[str, ModelSize] = dataclasses.field(default_factory=dict)
  training: Training | None = None
  skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
  sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
  failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
  failure: str = ''


def read_result(cell: Cell, runner: StageRunner) -> CellResult:
  """Returns the result of a cell; evaluations that have not ended are left out.

  Raises:
    UserError: a file is missing or broken.
  """
  records: dict[tuple[str, str], Records] = {}
  skipped: dict[str, str] = {}
  sources: dict[str, str] = {}
  failed: dict[str, str] = {}
  sizes: dict[str, ModelSize] = {}
  training = None
  for stage in cell.experiment.evaluations():
    folder = runner.folder(stage)
    if not (folder / 'summary.json').exists():
      continue
    summary = read_json(folder / 'summary.json')
    records |= {(task, stage.arm): found
                for task, found in _records(stage, folder, summary['matchers'])}
    sources |= summary['sources']
    skipped |= summary['skipped']
    failed |= summary['failed']
    # A stage of an earlier version has no parameters in its record.
    if runner.is_done(stage) and (found := runner.record(stage).get('parameters')):
      sizes[stage.arm] = _size(stage.model, found, runner)
    training = _training(stage.model, runner) or training  # that of toolformer comes last
  models = {stage.arm: _model_origin(stage.model) for stage in cell.experiment.evaluations()}
  return CellResult(cell, records, models, sizes, training, skipped, sources, failed)


def _model_origin(model: str | Finetune | Compress) -> str:
  """Returns the key of the first training of a model, or its checkpoint if it was not trained.

  A model and what is made of it, by compression or further training, have it in common.
  """
  training = ''
  while not isinstance(model, str):
    if isinstance(model, Finetune):
      training = model.key
    model = model.model
  return training or model


def _size(model: str | Stage, parameters: int, runner: StageRunner) -> ModelSize:
  pruned = _pruned(model)
  return ModelSize(
      parameters, runner.record(pruned)['nonzero'] if pruned else parameters,
      runner.record(model)['weight_bytes'] if isinstance(model, Compress) else 4 * parameters)


def _training(model: str | Stage, runner: StageRunner) -> Training | None:
  """Returns what the last training of a model took; None if there was none, or it is not recorded.
  """
  match model:
    case Compress():
      return _training(model.model, runner)
    case Finetune():
      record = runner.record(model)
      if 'trained' in record:
        return Training(record['trained'], record['train_seconds'], record.get('step_bytes'))
  return None


def _pruned(model: str | Stage) -> Compress | None:
  """Returns the stage that made weights of a model zero; a recovery keeps them."""
  match model:
    case Compress(config=config) if config.sparsity:
      return model
    case Compress() | Finetune():
      return _pruned(model.model)
  return None


def _records(stage: Evaluate, folder: epath.Path, tasks: Iterable[str]
             ) -> Iterable[tuple[str, Records]]:
  """Yields those of `tasks` that an evaluation has, with their scored predictions."""
  for task in tasks:
    file = folder / 'predictions' / f'{task}.{stage.arm}.jsonl'
    if file.exists():
      yield task, [fields for _, fields in read_objects(file)]


def cell_report(result: CellResult, runner: StageRunner) -> str:
  """Returns the report of one experiment: its evaluation, and its figures beside the paper's.

  Both are those of `evaluate` with all arms. Arms that could not be evaluated are listed with the
  reason.
  """
  experiment = result.cell.experiment
  last = [one for one in experiment.evaluations()  # without models whose training failed
          if isinstance(one.model, str) or runner.is_done(one.model)]
  plan = api.evaluation_plan(
      list(experiment.tasks), arms={one.arm: runner.checkpoint(one.model) for one in last},
      data_dir=experiment.data_dir, tools=list(experiment.evaluation_tools), limit=experiment.limit,
      config=experiment.evaluation, generation_config=experiment.generation,
      engine_config=experiment.engine, model_config=experiment.model,
      executor_config=experiment.executor, toolbox=experiment.toolbox, syntax=experiment.syntax)
  evaluated = {arm for _, arm in result.records}
  missing = {} if not result.failure else {
      TITLES[arm]: result.failure for arm in experiment.arms if arm not in evaluated}
  found = EvaluationResult(skipped=dict(result.skipped), sources=dict(result.sources),
                           failed={**result.failed, **missing})
  for task in plan.tasks:
    by_arm = {one.arm: result.records[task.name, one.arm] for one in last
              if (task.name, one.arm) in result.records}
    if by_arm:
      found.add_task(task, by_arm, plan.config)
  title = f'{experiment.config.title}: ours beside the paper'
  compared = comparison.report(title, plan, found)
  return f'{tables.report(plan, found)}\n{compared}\n'
