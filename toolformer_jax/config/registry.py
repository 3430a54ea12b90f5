"""What gin can bind: the settings classes, the options of a run, and their defaults."""

import dataclasses
from collections.abc import Iterator, Mapping

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.calls import CallSyntax
from toolformer_jax.checkpoints.loading import ModelConfig
from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.data.augmentation import AugmentationConfig
from toolformer_jax.data.corpus import CorpusConfig
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.experiments.config import ExperimentConfig, GridConfig
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.models.adapter_config import ADAPTERS
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.tools.custom import CustomToolsConfig
from toolformer_jax.tools.executor import ExecutorConfig
from toolformer_jax.tools.frames import FramesConfig
from toolformer_jax.tools.ocr import OcrConfig
from toolformer_jax.tools.passage_index import SearchConfig
from toolformer_jax.tools.recognize import RecognizeConfig
from toolformer_jax.tools.registry import MtConfig, QaConfig
from toolformer_jax.tools.speak import SpeakConfig
from toolformer_jax.tools.transcribe import TranscribeConfig
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.pretrain_config import PretrainConfig
from toolformer_jax.training.privacy.config import PrivacyConfig
from toolformer_jax.training.recovery.config import DistillationConfig, QatConfig

# Bound as `AnnotationConfig.temperature = 0.7`; ToolConfig also for one tool alone, as
# `calculator/ToolConfig.k = 20`.
SETTINGS = {settings.__name__: settings for settings in (
    AnnotationConfig, AugmentationConfig, CallSyntax, CompressionConfig, CorpusConfig,
    CustomToolsConfig, DistillationConfig, EngineConfig, EvaluationConfig, ExecutorConfig,
    ExperimentConfig, FinetuneConfig, FramesConfig, GenerationConfig, GridConfig, MediaLimits,
    MixtureConfig, ModelConfig, MtConfig, OcrConfig, PretrainConfig, PrivacyConfig, QaConfig,
    QatConfig, RecognizeConfig, SearchConfig, ServingConfig, SpeakConfig, ToolConfig,
    TranscribeConfig, *ADAPTERS.values())}
RENAMED = {'OwnTools': 'CustomToolsConfig'}  # by their names in earlier versions

# Options of commands that gin binds as macros: `CHECKPOINT = 'smollm2-135m'` stands for
# `--checkpoint smollm2-135m`. Lists are lists of strings. A command ignores those that it lacks.
RUN_MACROS: Mapping[str, type] = {
    'ADAPTER': str, 'ADAPTERS': list, 'ARMS': str, 'CHECKPOINT': str, 'CORPUS': str, 'DATA': list,
    'DATA_DIR': str, 'DEV': list, 'LIMIT': int, 'OUTPUT_DIR': str, 'SEED': int, 'TASKS': list,
    'TEACHER': str, 'TOKENIZER': str, 'TOOLS': list, 'WITHOUT_CALLS': bool}


def default_bindings() -> Iterator[str]:
  """Yields the bindings that hold before any file: the defaults that no dataclass can state.

  One macro, SEED, is the seed of all settings that have one.
  """
  yield 'SEED = 0'
  for name, settings in SETTINGS.items():
    if 'seed' in {field.name for field in dataclasses.fields(settings)}:
      yield f'{name}.seed = %SEED'
