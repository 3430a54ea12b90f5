"""The settings of a run, as objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.calls import CallSyntax
from toolformer_jax.checkpoints.loading import ModelConfig
from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.data.corpus import CorpusConfig
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.experiments.config import ExperimentConfig, GridConfig
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.tools.executor import ExecutorConfig
from toolformer_jax.tools.registry import Toolbox
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.pretrain_config import PretrainConfig


@dataclass(frozen=True)
class RunConfig:
  """All settings of a run.

  Attributes:
    annotation, compression, corpus, engine, evaluation, executor, experiment, finetune,
      generation, grid, mixture, model, pretrain, serving, syntax: the settings of each package.
    toolbox: how tools are built.
    tools: thresholds and prompt of each tool, by its name in lower case.
    shared: the tools for which nothing is bound by itself: they have the settings of all tools, and
      otherwise the paper's.
    macros: options of the command that are bound in gin, such as CHECKPOINT.
    text: gin that gives the same settings again, defaults included.
  """

  annotation: AnnotationConfig
  compression: CompressionConfig
  corpus: CorpusConfig
  engine: EngineConfig
  evaluation: EvaluationConfig
  executor: ExecutorConfig
  experiment: ExperimentConfig
  finetune: FinetuneConfig
  generation: GenerationConfig
  grid: GridConfig
  mixture: MixtureConfig
  model: ModelConfig
  pretrain: PretrainConfig
  serving: ServingConfig
  syntax: CallSyntax
  toolbox: Toolbox
  tools: Mapping[str, ToolConfig]
  shared: frozenset[str] = field(compare=False)
  macros: Mapping[str, Any]
  text: str

  def tool_config(self, tool: str) -> ToolConfig:
    """Returns the settings of the tool called `tool`, in any case."""
    return self.tools[tool.lower()]
