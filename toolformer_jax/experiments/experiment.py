"""An experiment: a model annotates a corpus, learns from it, and is evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.checkpoints.loading import ModelConfig
from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.data.corpus import CorpusConfig
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.evaluation.arms import TITLES, Arm
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.plan import check_evaluation
from toolformer_jax.evaluation.tasks import find_tasks, trainable_tasks
from toolformer_jax.experiments.config import ExperimentConfig, check_recovery
from toolformer_jax.experiments.stages import (
  Annotate,
  Compress,
  Evaluate,
  Finetune,
  Stage,
  TaskSplit,
)
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.tools.executor import ExecutorConfig
from toolformer_jax.tools.registry import Toolbox
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig


@dataclass(frozen=True)
class Experiment:
  """Annotate, fine-tune, compress if asked to, evaluate (paper, sections 2 and 4).

  Attributes:
    checkpoint: the model to begin with.
    tasks: the benchmarks.
    arms: the models that are compared, some of base, cc, disabled and toolformer: by name the
      checkpoint of one that is there already, or '' for one that the experiment trains.
    corpus: what is annotated; '' to learn from `data` alone.
    data: training data besides the corpus, as for `api.finetune`.
    tools: tools by name, of the annotation, and of the evaluation if `config` does not say others.
    data_dir, limit: as for `api.evaluate`.
    config: what the experiment does besides its stages' own settings.
    compression: how the model of each arm is made smaller before it is evaluated.
    others: the settings of the stages.
  """

  checkpoint: str
  tasks: tuple[str, ...]
  tools: tuple[str, ...]
  arms: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(TITLES, ''))
  corpus: str = ''
  data: tuple[str, ...] = ()
  data_dir: str = 'data'
  limit: int | None = None
  config: ExperimentConfig = ExperimentConfig()
  annotation: AnnotationConfig = AnnotationConfig()
  corpus_config: CorpusConfig = CorpusConfig()
  tool_configs: Mapping[str, ToolConfig] = field(default_factory=dict)
  finetune: FinetuneConfig = FinetuneConfig()
  mixture: MixtureConfig = MixtureConfig()
  compression: CompressionConfig = CompressionConfig()
  evaluation: EvaluationConfig = EvaluationConfig()
  generation: GenerationConfig = GenerationConfig()
  engine: EngineConfig = EngineConfig()
  model: ModelConfig = ModelConfig()
  executor: ExecutorConfig = ExecutorConfig()
  toolbox: Toolbox = Toolbox()
  syntax: CallSyntax = DEFAULT_SYNTAX

  def __post_init__(self) -> None:
    for arm in self.arms:
      if arm not in TITLES:
        raise unknown('arm', arm, TITLES)
    check_evaluation(find_tasks(self.tasks), [*self.arms], limit=self.limit,
                     generation=self.generation)
    if self.finetune.distillation:
      raise UserError('an experiment has a teacher only in its recovery: bind recovery/'
                      'FinetuneConfig.distillation in place of FinetuneConfig.distillation')
    trained = [arm for arm, checkpoint in self.arms.items() if arm != 'base' and not checkpoint]
    trainable_tasks(self.config.train_tasks, 'ExperimentConfig.train_tasks', self.data_dir)
    if trained and self.config.rounds and not (self.corpus or self.data or self.config.train_tasks):
      raise UserError('there is nothing to learn from: the experiment needs CORPUS or DATA, or a '
                      f'checkpoint for each arm that it would train, such as {trained[0]}=C')
    self._check_compression()

  def _check_compression(self) -> None:
    """Raises UserError if models cannot be made smaller, or trained after that."""
    recovery = self.config.recovery
    if (self.compression.needs_texts or recovery) and not self.config.calibration:
      raise UserError('to make models smaller, this experiment needs texts: bind '
                      'ExperimentConfig.calibration to a corpus')
    if recovery:
      check_recovery(recovery, self.compression)
      given = [arm for arm, checkpoint in self.arms.items() if arm != 'base' and checkpoint]
      if given and not self.data:
        raise UserError(f'the recovery of {given[0]}={self.arms[given[0]]} needs the texts that it '
                        'learned from: give DATA')

  @property
  def evaluation_tools(self) -> tuple[str, ...]:
    """The tools that Toolformer may call in the evaluation."""
    return self.config.evaluation_tools or self.tools

  def evaluations(self) -> list[Evaluate]:
    """Returns the last stages, one for each arm; they contain all others."""
    return [self._evaluation(arm, checkpoint) for arm, checkpoint in self.arms.items()]

  def stages(self) -> list[Stage]:
    """Returns all stages, each after those that it reads, and each once."""
    return list(dict.fromkeys(stage for last in self.evaluations() for stage in last.in_order()))

  def _evaluation(self, arm: str, checkpoint: str) -> Evaluate:
    """Returns the evaluation of an arm; what only calls use is no input of an arm without them."""
    calls = Arm(arm, checkpoint).calls
    return Evaluate(
        arm=arm, model=self._compressed(arm, checkpoint or self._model(arm)),
        tasks=self.tasks, data_dir=self.data_dir, limit=self.limit,
        tools=self.evaluation_tools if calls else (), config=self.evaluation,
        generation_config=self.generation if calls else self.generation.without_calls,
        engine_config=self.engine, model_config=self.model,
        executor_config=self.executor if calls else ExecutorConfig(),
        toolbox=self.toolbox if calls else Toolbox(), syntax=self.syntax)

  def _model(self, arm: str) -> str | Finetune:
    """Returns the model to begin with, or the training of the last round."""
    if arm == 'base' or not self.config.rounds:
      return self.checkpoint
    model: str | Finetune = self.checkpoint
    for _ in range(self.config.rounds - 1 if self.corpus else 0):
      model = self._round(model, without_calls=False)
    return self._round(model, without_calls=arm == 'cc')

  def _compressed(self, arm: str, model: str | Finetune) -> str | Finetune | Compress:
    """Returns a model, made smaller and then trained again if the experiment says so."""
    everything = self.compression
    if everything.is_neutral:
      return model
    if not self.config.recovery:
      return self._compress(model, everything)
    # Floating-point weights are trained, so that they are rounded to few bits last.
    before, after = everything.without_bits, everything.bits_alone
    begun = model if before.is_neutral else self._compress(model, before)
    recovered = self._recovery(self.config.recovery, arm, begun, model)
    return recovered if after.is_neutral else self._compress(recovered, after)

  def _compress(self, model: str | Finetune, config: CompressionConfig) -> Compress:
    corpus = self.config.calibration if config.needs_texts else ''
    return Compress(model=model, corpus=corpus, corpus_config=self.corpus_config, config=config,
                    model_config=self.model)

  def _recovery(self, config: FinetuneConfig, arm: str, compressed: str | Finetune | Compress,
                original: str | Finetune) -> Finetune:
    """Returns the training of a compressed model, on what its arm learned and general texts."""
    learned: tuple[str | Annotate | TaskSplit, ...] = ()
    if arm != 'base':
      learned = (*self.data, *self._train_tasks)
    if isinstance(original, Finetune):
      learned = original.data
    return Finetune(
        model=compressed, teacher=original if config.distillation else None,
        data=(*learned, self.config.calibration), corpus_config=self.corpus_config, config=config,
        mixture=self.mixture, without_calls=arm == 'cc', model_config=self.model,
        syntax=self.syntax)

  def _round(self, model: str | Finetune, without_calls: bool) -> Finetune:
    """Returns the training on what `model` annotates."""
    annotated = (self._annotated(model),) if self.corpus else ()
    return Finetune(
        model=self.checkpoint, teacher=None, data=(*annotated, *self.data, *self._train_tasks),
        corpus_config=self.corpus_config, config=self.finetune, mixture=self.mixture,
        without_calls=without_calls, model_config=self.model, syntax=self.syntax)

  @property
  def _train_tasks(self) -> tuple[TaskSplit, ...]:
    return tuple(TaskSplit(name, self.data_dir) for name in self.config.train_tasks)

  def _annotated(self, model: str | Finetune) -> Annotate:
    return Annotate(
        model=model, corpus=self.corpus, tools=self.tools, corpus_config=self.corpus_config,
        config=self.annotation,
        tool_configs={name: one for name, one in self.tool_configs.items()
                      if name.lower() in {tool.lower() for tool in self.tools}},
        model_config=self.model, executor_config=self.executor, toolbox=self.toolbox,
        syntax=self.syntax)
