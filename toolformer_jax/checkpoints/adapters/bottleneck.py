"""Bottleneck adapters in the format of AdapterHub's library `adapters`."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from toolformer_jax.checkpoints.adapters.modules import Path, Weights, block_name, layer_weights
from toolformer_jax.checkpoints.families.registry import family_of
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import BottleneckConfig
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import BLOCKS
from toolformer_jax.models.language_model import LanguageModel

_NAME = 'toolformer'  # of an adapter that is written
_PLACES = {'attention_adapter': 'attention_adapters', 'mlp_adapter': 'output_adapters'}
_TENSORS = {'down': 'adapter_down.0.weight', 'down_bias': 'adapter_down.0.bias',
            'up': 'adapter_up.weight', 'up_bias': 'adapter_up.bias'}
# Settings of AdapterHub that are supported with one value alone.
_FIXED: Mapping[str, Any] = {
    'original_ln_after': True, 'ln_before': False, 'ln_after': False, 'is_parallel': False,
    'scaling': 1.0, 'use_gating': False, 'residual_before_ln': True,
    'adapter_residual_before_ln': False, 'inv_adapter': None, 'cross_adapter': False,
    'leave_out': [], 'phm_layer': False}


def write_bottleneck(model: LanguageModel, adapter: BottleneckConfig, base: str
                     ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns adapter_config.json and the tensors of a bottleneck adapter."""
  tensors = {}
  for layer in range(model.config.layers):
    for path in _paths(adapter):
      for ours, theirs in _TENSORS.items():
        array = layer_weights(model, path, layer)[ours]
        tensors[_tensor_name(model.config, path[-1], layer, _NAME, theirs)] = array.T
  family = family_of(model.config)
  is_houlsby = adapter.placement == 'houlsby'
  settings = {
      'architecture': None, 'mh_adapter': is_houlsby, 'output_adapter': True,
      'original_ln_before': not is_houlsby, 'reduction_factor': adapter.reduction_factor,
      'non_linearity': adapter.activation, 'dropout': 0.0, 'init_weights': 'bert', **_FIXED}
  return {'config': settings, 'name': _NAME, 'model_type': family.model_type, 'model_name': base,
          'model_class': family.architecture, 'hidden_size': model.config.embed_dim,
          'version': 'adapters.1.3.0'}, tensors


def read_bottleneck(config: DecoderConfig, fields: Mapping[str, Any],
                    tensors: Mapping[str, np.ndarray]) -> tuple[BottleneckConfig, Weights]:
  """Returns the settings and the weights of a bottleneck adapter.

  Raises:
    UserError: its kind is not supported, or it belongs to a model of other sizes.
  """
  adapter = _read_settings(fields['config'])
  size, D = adapter.size(config.embed_dim), config.embed_dim
  shapes = {'down': (size, D), 'down_bias': (size,), 'up': (D, size), 'up_bias': (D,)}
  weights: Weights = {path: {} for path in _paths(adapter)}
  left = {*tensors}
  for path in weights:
    for ours, theirs in _TENSORS.items():
      stack = []
      for layer in range(config.layers):
        name = _tensor_name(config, path[-1], layer, str(fields.get('name')), theirs)
        if name not in tensors or tensors[name].shape != shapes[ours]:
          found = tensors[name].shape if name in tensors else 'missing'
          raise UserError(f'the tensor {name} must have the shape {shapes[ours]} for this model, '
                          f'but is {found}')
        left.discard(name)
        stack.append(tensors[name].T)
      weights[path][ours] = np.stack(stack)
  if left:
    raise UserError(f'the tensor {min(left)} does not belong to an adapter of this model')
  return adapter, weights


def _read_settings(settings: Mapping[str, Any]) -> BottleneckConfig:
  """Returns the settings of an adapter of AdapterHub."""
  for name, value in _FIXED.items():
    if settings.get(name, value) != value:
      raise UserError(f'bottleneck adapters with {name} = {settings[name]!r} are not supported, '
                      f'only with {value!r}')
  places = (settings.get('mh_adapter'), settings.get('output_adapter'),
            settings.get('original_ln_before', False))
  if places not in ((True, True, False), (False, True, True)):
    raise UserError('only DoubleSeqBnConfig (houlsby) and SeqBnConfig (pfeiffer) are supported, '
                    'not mh_adapter, output_adapter, original_ln_before = '
                    f'{", ".join(map(str, places))}')
  if not isinstance(settings['reduction_factor'], int | float):
    raise UserError('a reduction_factor for each layer is not supported')
  return BottleneckConfig(placement='houlsby' if places[0] else 'pfeiffer',
                          reduction_factor=float(settings['reduction_factor']),
                          activation=settings['non_linearity'])


def _paths(adapter: BottleneckConfig) -> Iterator[Path]:
  """Yields the paths of the bottlenecks of a block."""
  for place in _PLACES:
    if adapter.placement == 'houlsby' or place == 'mlp_adapter':
      yield BLOCKS, place


def _tensor_name(config: DecoderConfig, place: str, layer: int, name: str, tensor: str) -> str:
  return f'{block_name(config).format(layer)}.{_PLACES[place]}.adapters.{name}.{tensor}'
