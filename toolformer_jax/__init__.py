"""Toolformer in JAX and Flax: language models that teach themselves to use tools.

    import toolformer_jax as tf_jax
    model = tf_jax.load_model('smollm2-135m')

All names are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = '0.1.0'

if TYPE_CHECKING:
  from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
  from toolformer_jax.annotation.prompts import Prompt
  from toolformer_jax.api import (
    annotate,
    compress,
    evaluate,
    export,
    finetune,
    generate,
    score,
    token_losses,
  )
  from toolformer_jax.checkpoints.loading import ModelConfig, load_model
  from toolformer_jax.compression.config import CompressionConfig
  from toolformer_jax.data.augmentation import AugmentationConfig
  from toolformer_jax.data.records import Document
  from toolformer_jax.evaluation.config import EvaluationConfig
  from toolformer_jax.inference.config import EngineConfig, GenerationConfig
  from toolformer_jax.inference.engine import Engine
  from toolformer_jax.media.limits import MediaLimits
  from toolformer_jax.media.table import MediaTable
  from toolformer_jax.models.adapter_config import (
    AdaLoraConfig,
    BottleneckConfig,
    Ia3Config,
    LoraConfig,
    PrefixConfig,
  )
  from toolformer_jax.models.adapter_stack import with_adapter
  from toolformer_jax.planning.search import plan
  from toolformer_jax.tools.base import Context
  from toolformer_jax.tools.custom import CustomToolsConfig
  from toolformer_jax.tools.executor import ExecutorConfig
  from toolformer_jax.tools.function import tool
  from toolformer_jax.tools.registry import Toolbox
  from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
  from toolformer_jax.training.pretrain_config import PretrainConfig
  from toolformer_jax.training.pretraining import pretrain
  from toolformer_jax.training.privacy.config import PrivacyConfig
  from toolformer_jax.training.recovery.config import DistillationConfig, QatConfig
  from toolformer_jax.training.sources import TaskRow

_MODULES = {
  'annotation.config': ('AnnotationConfig', 'ToolConfig'),
  'annotation.prompts': ('Prompt',),
  'api': ('annotate', 'compress', 'evaluate', 'export', 'finetune', 'generate', 'score',
          'token_losses'),
  'checkpoints.loading': ('ModelConfig', 'load_model'),
  'compression.config': ('CompressionConfig',),
  'data.augmentation': ('AugmentationConfig',),
  'data.records': ('Document',),
  'evaluation.config': ('EvaluationConfig',),
  'inference.config': ('EngineConfig', 'GenerationConfig'),
  'inference.engine': ('Engine',),
  'media.limits': ('MediaLimits',),
  'media.table': ('MediaTable',),
  'models.adapter_config': ('AdaLoraConfig', 'BottleneckConfig', 'Ia3Config', 'LoraConfig',
                            'PrefixConfig'),
  'models.adapter_stack': ('with_adapter',),
  'planning.search': ('plan',),
  'tools.base': ('Context',),
  'tools.custom': ('CustomToolsConfig',),
  'tools.executor': ('ExecutorConfig',),
  'tools.function': ('tool',),
  'tools.registry': ('Toolbox',),
  'training.config': ('FinetuneConfig', 'MixtureConfig'),
  'training.pretrain_config': ('PretrainConfig',),
  'training.pretraining': ('pretrain',),
  'training.privacy.config': ('PrivacyConfig',),
  'training.recovery.config': ('DistillationConfig', 'QatConfig'),
  'training.sources': ('TaskRow',),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [  # noqa: F822 - loaded by __getattr__
  'AdaLoraConfig', 'AnnotationConfig', 'AugmentationConfig', 'BottleneckConfig',
  'CompressionConfig', 'Context', 'CustomToolsConfig', 'DistillationConfig', 'Document', 'Engine',
  'EngineConfig', 'EvaluationConfig', 'ExecutorConfig', 'FinetuneConfig', 'GenerationConfig',
  'Ia3Config', 'LoraConfig', 'MediaLimits', 'MediaTable', 'MixtureConfig', 'ModelConfig',
  'PrefixConfig', 'PretrainConfig', 'PrivacyConfig', 'Prompt', 'QatConfig', 'TaskRow', 'ToolConfig',
  'Toolbox', 'annotate', 'compress', 'evaluate', 'export', 'finetune', 'generate', 'load_model',
  'plan', 'pretrain', 'score', 'token_losses', 'tool', 'with_adapter',
]


def __getattr__(name: str) -> Any:
  if name not in _MODULE_OF:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{__name__}.{_MODULE_OF[name]}'), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *_MODULE_OF})
