"""The stages of an experiment, as values: what each of them does and depends on.

Two stages with equal values have equal results, so that a grid does them once. A stage contains
those that it depends on.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.calls import CallSyntax
from toolformer_jax.checkpoints.loading import ModelConfig
from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.data.corpus import CorpusConfig
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.tools.executor import ExecutorConfig
from toolformer_jax.tools.registry import Toolbox
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig


@dataclass(frozen=True, eq=False)
class Stage:
  """What all stages have. Stages are equal if they do the same with equal inputs."""

  kind: ClassVar[str]

  @functools.cached_property
  def key(self) -> str:
    """The name of its folder: its kind, and a hash of everything that it depends on."""
    text = json.dumps(_as_json(self), sort_keys=True)
    return f'{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}'

  def inputs(self) -> Iterator['Stage']:
    """Yields the stages whose results it reads."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      yield from (one for one in (value if isinstance(value, tuple) else (value,))
                  if isinstance(one, Stage))

  def in_order(self) -> list['Stage']:
    """Returns all stages that have to be run, each after its inputs, this one last."""
    ordered = {stage: None for one in self.inputs() for stage in one.in_order()}
    return [*ordered, self]

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Stage) and self.key == other.key

  def __hash__(self) -> int:
    return hash(self.key)


@dataclass(frozen=True, eq=False)
class Annotate(Stage):
  """Annotates a corpus; see `api.annotate` for its settings."""

  kind = 'annotate'
  model: 'str | Finetune'
  corpus: str
  tools: tuple[str, ...]
  corpus_config: CorpusConfig
  config: AnnotationConfig
  tool_configs: Mapping[str, ToolConfig]
  model_config: ModelConfig
  executor_config: ExecutorConfig
  toolbox: Toolbox
  syntax: CallSyntax


@dataclass(frozen=True)
class TaskSplit:
  """The training split of a task; see `task_data.task_rows`.

  Attributes:
    task: its name.
    data_dir: has its official files in a folder of this name.
  """

  task: str
  data_dir: str


@dataclass(frozen=True, eq=False)
class Finetune(Stage):
  """Trains a model on annotated texts and tasks; see `api.finetune` for its settings."""

  kind = 'finetune'
  model: 'str | Finetune | Compress'
  teacher: 'str | Finetune | None'
  data: tuple[str | Annotate | TaskSplit, ...]
  corpus_config: CorpusConfig
  config: FinetuneConfig
  mixture: MixtureConfig
  without_calls: bool
  model_config: ModelConfig
  syntax: CallSyntax


@dataclass(frozen=True, eq=False)
class Compress(Stage):
  """Makes a model smaller; see `api.compress` for its settings."""

  kind = 'compress'
  model: str | Finetune
  corpus: str
  corpus_config: CorpusConfig
  config: CompressionConfig
  model_config: ModelConfig


@dataclass(frozen=True, eq=False)
class Evaluate(Stage):
  """Evaluates one arm on all tasks; see `api.evaluate` for its settings."""

  kind = 'evaluate'
  arm: str
  model: str | Finetune | Compress
  tasks: tuple[str, ...]
  data_dir: str
  limit: int | None
  tools: tuple[str, ...]
  config: EvaluationConfig
  generation_config: GenerationConfig
  engine_config: EngineConfig
  model_config: ModelConfig
  executor_config: ExecutorConfig
  toolbox: Toolbox
  syntax: CallSyntax


def _as_json(value: Any) -> Any:
  """Returns a value of a stage as JSON; of a stage in it, its key."""
  if dataclasses.is_dataclass(value):
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: one.key if isinstance(one, Stage) else _as_json(one)
            for name, one in fields.items()}
  if isinstance(value, Mapping):
    return {str(name): _as_json(one) for name, one in value.items()}
  if isinstance(value, list | tuple):
    return [one.key if isinstance(one, Stage) else _as_json(one) for one in value]
  return value if isinstance(value, str | int | float | bool | None) else str(value)
