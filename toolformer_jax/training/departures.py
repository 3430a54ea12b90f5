"""Where a fine-tuning run departs from what the paper states (section 4.1, appendix B)."""

import dataclasses

from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.presets import size_name
from toolformer_jax.runtime.departures import MODEL, Departure, Stated, departures
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig

_LOSS, _SIZES = 'section 2', 'appendix B'
STATED = {
  **MODEL,
  'ModelConfig.dtype': Stated('bfloat16', _SIZES),
  'FinetuneConfig.steps': Stated(2000, f'{_SIZES}: at most'),
  'FinetuneConfig.batch_size': Stated(128, _SIZES),
  'FinetuneConfig.batch_rows': Stated(0, f'{_SIZES}: a batch of 128 sequences'),
  'FinetuneConfig.row_tokens': Stated(1024, _SIZES),
  'FinetuneConfig.learning_rate': Stated(1e-5, _SIZES),
  'FinetuneConfig.warmup_fraction': Stated(0.1, _SIZES),
  'FinetuneConfig.save_every': Stated(500, _SIZES),
  'FinetuneConfig.adapter': Stated(None, 'section 4.1: all weights'),
  'FinetuneConfig.mask_results': Stated(False, f'{_LOSS}: the loss of all tokens'),
  'FinetuneConfig.z_loss': Stated(0.0, f'{_LOSS}: the standard objective'),
  'FinetuneConfig.label_smoothing': Stated(0.0, f'{_LOSS}: the standard objective'),
  'FinetuneConfig.adversarial_epsilon': Stated(0.0, f'{_LOSS}: the standard objective'),
  'FinetuneConfig.distillation': Stated(None, f'{_LOSS}: the standard objective'),
  'FinetuneConfig.keep_zeros': Stated(False, 'section 4.1: all weights'),
  'FinetuneConfig.qat': Stated(None, f'{_LOSS}: the standard objective'),
  'FinetuneConfig.privacy': Stated(None, f'{_LOSS}: the standard objective'),
  'MixtureConfig.cap': Stated(25_000, _SIZES),
  'MixtureConfig.rates': Stated({}, f'{_SIZES}: every text once in an epoch'),
  'MixtureConfig.dev_texts': Stated(1000, _SIZES),
  'MixtureConfig.augmentation': Stated(None, f'{_SIZES}: every text once in an epoch')}


def finetuning_departures(config: FinetuneConfig, mixture: MixtureConfig, model: DecoderConfig,
                          ) -> tuple[Departure, ...]:
  """Returns what differs from the paper in the fine-tuning of `model`."""
  settings = {'model': size_name(model), 'ModelConfig.dtype': model.dtype}
  for values in (config, mixture):
    settings |= {f'{type(values).__name__}.{field.name}': getattr(values, field.name)
                 for field in dataclasses.fields(values)}
  return departures(settings, STATED)
