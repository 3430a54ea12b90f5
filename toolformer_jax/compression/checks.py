"""Checks what shall be removed from a model by its configuration alone, without its weights.

Importing this module does not load JAX.
"""

from collections.abc import Sequence

from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.weight_groups import check_groups

_FIXED_HEADS = ('gpt2', 'gptj')  # config.json says how large a head is by how many there are


def check_compression(config: CompressionConfig, decoder: DecoderConfig) -> None:
  """Checks that a model can be compressed, before its weights or any text are read.

  Args:
    config: what is removed.
    decoder: configuration of the model.

  Raises:
    UserError: the model does not have what shall be kept, its family has no such models, its
      adapter cannot be merged, the inputs of its matrices are no whole groups for 2:4 or 4 bits, it
      has fewer positions than a row of calibration texts, or it cannot fit into `weight_bytes`.
  """
  if decoder.adapter:
    from toolformer_jax.models.adapter_merging import check_mergeable  # loads JAX
    check_mergeable(decoder.adapter)
  if config.needs_texts and config.calibration_tokens > decoder.max_positions:
    raise UserError(f'CompressionConfig.calibration_tokens is {config.calibration_tokens}; bind it '
                    f'to at most {decoder.max_positions}, the positions of the model')
  if config.layers > decoder.layers:
    raise UserError(f'CompressionConfig.layers is {config.layers}; keep at most the '
                    f'{decoder.layers} layers that the model has')
  if config.keep_layers:
    check_kept_layers(config.keep_layers, decoder)
  _check_units(config, decoder)
  kept = compressed_config(config, decoder)
  if config.sparsity and config.pattern == '2:4':
    for name, (inputs, _) in kept.modules.items():
      if inputs % 4:
        raise UserError(f"CompressionConfig.pattern is '2:4', and the matrix {name} has {inputs} "
                        "inputs, which 4 does not divide; take 'unstructured'")
  if config.bits in ('int4', 'mixed'):
    check_groups(kept, config.group_size, 'CompressionConfig')
  if config.bits == 'mixed':
    from toolformer_jax.compression.mixed_precision import check_budget  # loads JAX
    check_budget(kept, config.group_size, config.weight_bytes)


def check_kept_layers(kept: Sequence[int], decoder: DecoderConfig) -> None:
  """Checks that a model can have only some of its layers.

  Args:
    kept: their numbers, from 0 on, in ascending order.
    decoder: configuration of the model.

  Raises:
    UserError: there is no such layer, or layers would become local that are global, or global that
      are local.
  """
  period = decoder.global_every
  if not kept or max(kept) >= decoder.layers:
    raise UserError(f'the layers {list(kept)} cannot be kept: the model has the layers 0 to '
                    f'{decoder.layers - 1}')
  if decoder.sliding_window and decoder.layers >= period:
    moved = [i for place, i in enumerate(kept)
             if ((i + 1) % period == 0) != ((place + 1) % period == 0)]
    if moved:
      raise UserError(f'layer {moved[0]} cannot stay what it is, local or global, without the '
                      f'layers before it; remove whole periods of {period} layers')


def _check_units(config: CompressionConfig, decoder: DecoderConfig) -> None:
  """Checks how many heads and channels shall be kept."""
  for name in ('kv_heads', 'mlp_dim'):
    kept, there = getattr(config, name), getattr(decoder, name)
    if kept > there:
      raise UserError(f'CompressionConfig.{name} is {kept}; keep at most {there}, as many as the '
                      'model has')
  if config.kv_heads not in (0, decoder.kv_heads):
    from toolformer_jax.checkpoints.families.registry import family_of  # loads JAX
    if (name := family_of(decoder).model_type) in _FIXED_HEADS:
      raise UserError(f'no head of a {name} model can be removed: in its format the heads divide '
                      'the embedding; remove channels or layers')


def compressed_config(config: CompressionConfig, decoder: DecoderConfig) -> DecoderConfig:
  """Returns the configuration of a compressed model: fewer layers, heads and channels, no adapter.

  Args:
    config: what is removed.
    decoder: configuration of the model before.
  """
  kv_heads = config.kv_heads or decoder.kv_heads
  return decoder.replace(
      adapter=None, layers=config.layers or len(config.keep_layers) or decoder.layers,
      kv_heads=kv_heads, heads=kv_heads * (decoder.heads // decoder.kv_heads),
      mlp_dim=config.mlp_dim or decoder.mlp_dim)
