"""Merges an adapter into the weights of its model."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  AdapterConfig,
  Ia3Config,
  LoraConfig,
  LoraStackConfig,
)
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.language_model import LanguageModel


def merge_adapter(model: LanguageModel) -> LanguageModel:
  """Returns a model without adapter that computes the same; a model without adapter itself.

  Raises:
    UserError: adapters of this kind cannot be merged.
  """
  adapter = model.config.adapter
  if adapter is None:
    return model
  model.check_is_float('merged with its adapter')
  check_mergeable(adapter)
  params, weights = model.variables['params'], model.variables[ADAPTER]
  def merge(params: Any, weights: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, stack: merge_parameter(
            adapter, tuple(key.key for key in path), stack, weights), params)
  shardings = jax.tree.map(lambda x: x.sharding, params)
  merged = jax.jit(merge, out_shardings=shardings)(params, weights)
  decoder = model.decoder.clone(config=model.config.replace(adapter=None))
  return dataclasses.replace(model, decoder=decoder, variables={'params': merged}, source='')


def check_mergeable(adapter: AdapterConfig) -> None:
  """Checks that adapters of this kind can be merged.

  Raises:
    UserError: they cannot.
  """
  if isinstance(adapter, LoraStackConfig):
    raise UserError('several adapters cannot be merged into the weights of the model; load the one '
                    'to merge alone, with load_model(checkpoint, adapter=DIR)')
  if not isinstance(adapter, LoraConfig | AdaLoraConfig | Ia3Config):
    raise UserError(f'a {adapter.kind} adapter cannot be merged into the weights of the model; '
                    'export it by itself, with --adapter_of BASE')


def merge_parameter(adapter: AdapterConfig, path: tuple[str, ...], stack: jax.Array, weights: Any
                    ) -> jax.Array:
  """Returns a parameter with its adapter merged, in its own dtype.

  Args:
    adapter: the kind of adapter.
    path: path of the parameter.
    stack: the parameter, of one or more layers.
    weights: the collection of the adapter, of the same layers.
  """
  for key in path[:-1]:
    weights = weights.get(key, {})
  if not weights or path[-1] not in ('kernel', 'bias'):
    return stack
  wide, module = stack.astype(jnp.float32), path[-2]
  weights = {name: one.astype(jnp.float32) for name, one in weights.items()}
  if isinstance(adapter, Ia3Config):
    return _scaled(adapter, module, path[-1], wide, weights['scale']).astype(stack.dtype)
  if path[-1] == 'bias' or not isinstance(adapter, LoraConfig | AdaLoraConfig):
    return stack
  a_LIr, b_LrO = weights['a'], weights['b']
  if isinstance(adapter, AdaLoraConfig):
    e_Lr = weights['e']
    a_LIr = a_LIr * e_Lr.reshape(len(e_Lr), *[1] * (a_LIr.ndim - 2), -1)
  layers, rank = len(wide), a_LIr.shape[-1]
  product_LIO = jnp.einsum(
      'lir,lro->lio', a_LIr.reshape(layers, -1, rank), b_LrO.reshape(layers, rank, -1),
      precision=jax.lax.Precision.HIGHEST)
  merged = wide + adapter.scale_of(module) * product_LIO.reshape(wide.shape)
  return merged.astype(stack.dtype)


def _scaled(adapter: Ia3Config, module: str, name: str, stack: jax.Array, scale: jax.Array
            ) -> jax.Array:
  """Returns a kernel or a bias, multiplied by the scale of the module's input or output."""
  missing = [1] * (stack.ndim - scale.ndim)
  if module not in adapter.feedforward_modules:
    return stack * scale.reshape(scale.shape[0], *missing, *scale.shape[1:])
  return stack * scale.reshape(*scale.shape, *missing) if name == 'kernel' else stack
