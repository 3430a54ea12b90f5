"""The plan of an evaluation: tasks, arms, and all that their predictions depend on."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolformer_jax.calls import CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.label_metrics import check_can_classify
from toolformer_jax.evaluation.predict import generation_config
from toolformer_jax.evaluation.task import (
  ClassificationTask,
  PerplexityTask,
  QuestionTask,
  Task,
  TextTask,
)
from toolformer_jax.evaluation.tasks import check_data_dir
from toolformer_jax.evaluation.text_metrics import check_packages
from toolformer_jax.inference.config import EngineConfig, GenerationConfig

# Fields of GenerationConfig that task and arm decide, and what decides them.
_FIXED_FIELDS = {'max_tokens': 'EvaluationConfig.number_tokens or tokens_per_word',
            'min_tokens': 'EvaluationConfig.min_tokens', 'max_words': 'no other setting',
            'disable_tools': 'the arm `disabled`'}


def check_limit(limit: int | None) -> None:
  """Checks the number of examples of each task, None for all.

  Raises:
    UserError: it is not at least 1.
  """
  if limit is not None and (type(limit) is not int or limit < 1):
    raise UserError(f'--limit must be at least 1, not {limit!r}')


def check_evaluation(tasks: Sequence[Task], arms: Sequence[str], *, limit: int | None,
                     generation: GenerationConfig) -> None:
  """Checks what is evaluated, before any file is read.

  Args:
    tasks: the tasks.
    arms: names of the arms.
    limit, generation: see `EvaluationPlan`.

  Raises:
    UserError: something is named twice or not at all, has no effect, or needs a package.
  """
  for option, names in (('--tasks', [task.name for task in tasks]), ('--arms', [*arms])):
    if not names:
      raise UserError(f'{option} is empty')
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
      raise UserError(f'{option}: {repeated[0]} occurs twice')
  check_limit(limit)
  check_can_classify(tasks)
  for task in tasks:
    if isinstance(task, TextTask):
      check_packages(task.metrics)
  for name, instead in _FIXED_FIELDS.items():
    if getattr(generation, name) != getattr(GenerationConfig(), name):
      raise UserError(f'GenerationConfig.{name} has no effect on an evaluation; use {instead}')


@dataclass(frozen=True)
class EvaluationPlan:
  """What is evaluated, and how.

  Attributes:
    tasks, arms: the rows and columns of the tables.
    data_dir: folder with a folder of files for each task; or 'tfds:' and the folder of
      TensorFlow Datasets.
    limit: number of examples of each task; None for all.
    config, generation, engine, syntax: how questions are prompted and predictions scored.
    tool_names: tools that Toolformer may call, where the task allows it.
    dtype: of the computation.
    checkpoint_hashes: hash of the content of each checkpoint, by its name.
    tool_versions: hash of what the results of each tool depend on, by the tool's name.
    limits: of tool calls.
    versions: of the software; recorded, not compared.
  """

  tasks: Sequence[Task]
  arms: Sequence[Arm]
  data_dir: str
  limit: int | None
  config: EvaluationConfig
  generation: GenerationConfig
  engine: EngineConfig
  syntax: CallSyntax
  tool_names: Sequence[str]
  dtype: str
  checkpoint_hashes: Mapping[str, str]
  tool_versions: Mapping[str, str]
  limits: Mapping[str, Any]
  versions: Mapping[str, str]

  def __post_init__(self) -> None:
    check_evaluation(self.tasks, [arm.name for arm in self.arms], limit=self.limit,
                     generation=self.generation)
    check_data_dir(self.tasks, self.data_dir)

  def tools_of(self, task: Task, arm: Arm) -> list[str]:
    """Returns the names of the tools that `arm` may call in `task`."""
    if not arm.calls or not isinstance(task, QuestionTask) or isinstance(task, ClassificationTask):
      return []
    return [name for name in self.tool_names if name not in task.without_tools]

  def depends_on(self, task: Task, arm: Arm) -> dict[str, Any]:
    """Returns what the predictions of an arm on a task depend on, as JSON (law 4)."""
    model: dict[str, Any] = {
        'checkpoint': self.checkpoint_hashes[arm.checkpoint], 'dtype': self.dtype}
    if not self.config.start_token:
      model['start_token'] = False
    if isinstance(task, PerplexityTask):
      return {**model, 'window_tokens': self.config.window_tokens,
              'stride_tokens': self.config.stride_tokens}
    if isinstance(task, ClassificationTask):
      if self.config.ensemble_adapters:
        model['ensemble_adapters'] = True
      return {**model, 'calibrate_labels': self.config.calibrate_labels}
    generation = dataclasses.asdict(generation_config(task, arm, self.generation, self.config))
    if not arm.calls:
      return {**model, 'generation': generation}
    tools = {name: self.tool_versions[name] for name in self.tools_of(task, arm)}
    return {**model, 'generation': generation, 'tools': tools,
            'limits': dict(self.limits), 'syntax': dataclasses.asdict(self.syntax),
            'calendar_date': self.config.calendar_date}
