"""Several low-rank adapters of one model, of which each row of a batch uses its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  AdapterConfig,
  LoraConfig,
  LoraStackConfig,
  is_target,
)
from toolformer_jax.models.adapters import ACTIVE, ADAPTER
from toolformer_jax.models.language_model import LanguageModel, abstract_variables


def stack_adapters(base: LanguageModel, tuned: Mapping[str, LanguageModel]) -> LanguageModel:
  """Returns `base` with the adapters of all `tuned` models; none is active.

  Args:
    base: a model without adapter, whose weights are shared.
    tuned: models with a low-rank adapter each and the weights of `base`, by the adapter's name.

  Raises:
    UserError: `base` has an adapter, a tuned model has none or one of another kind, or a name is
      empty.
  """
  if base.config.adapter:
    raise UserError(f'the model has an adapter of its own, {base.config.adapter.kind}; merge it '
                    'before others are loaded by name')
  adapters = [_low_rank_of(name, model) for name, model in tuned.items()]
  ranks = {
      module: tuple(adapter.rank_of(module) if is_target(adapter, module) else 0
                    for adapter in adapters) for module in base.config.modules}
  config = base.config.replace(adapter=LoraStackConfig(
      tuple(tuned), tuple((module, of) for module, of in ranks.items() if any(of))))
  decoder = base.decoder.clone(config=config)
  weights = _stacked(adapters, [model.variables[ADAPTER] for model in tuned.values()])
  shardings = sharding.state_shardings(abstract_variables(decoder)[ADAPTER], base.mesh)
  placed = jax.tree.map(jax.device_put, {**weights, ACTIVE: np.int32(0)}, shardings)
  return dataclasses.replace(base, decoder=decoder, source='',
                             variables={**base.variables, ADAPTER: placed})


def with_adapter(model: LanguageModel, name: str | None) -> LanguageModel:
  """Returns a model that uses one adapter of its stack wherever no other is asked for.

  The weights are shared, and no program is compiled again.

  Args:
    model: a model with adapters that have names.
    name: of the adapter; None for the model without adapter.

  Raises:
    UserError: there is no such adapter.
  """
  if name is None and not isinstance(model.config.adapter, LoraStackConfig):
    return model
  weights = model.variables[ADAPTER]
  active = jax.device_put(np.int32(adapter_number(model, name)), weights[ACTIVE].sharding)
  return dataclasses.replace(model, source='', variables={
      **model.variables, ADAPTER: {**weights, ACTIVE: active}})


def adapter_names(model: LanguageModel) -> tuple[str, ...]:
  """Returns the names of the adapters that the model has."""
  adapter = model.config.adapter
  return adapter.names if isinstance(adapter, LoraStackConfig) else ()


def adapter_number(model: LanguageModel, name: str | None) -> int:
  """Returns the number of an adapter, 0 for None: the model without adapter.

  Raises:
    UserError: there is no such adapter.
  """
  names = adapter_names(model)
  if name is None:
    return 0
  if not names:
    raise UserError(f'there is no adapter {name!r}: the model has no adapters with names; load it '
                    'with load_model(checkpoint, adapters={NAME: DIR})')
  if name not in names:
    raise unknown('adapter', name, names)
  return names.index(name) + 1


def active_number(model: LanguageModel) -> int:
  """Returns the number of the adapter that is used by default, 0 for none."""
  return int(model.variables[ADAPTER][ACTIVE]) if adapter_names(model) else 0


def _low_rank_of(name: str, model: LanguageModel) -> LoraConfig | AdaLoraConfig:
  """Returns the adapter of a model, after a check that it can be in a stack."""
  adapter = model.config.adapter
  if not name.strip():
    raise UserError('an adapter has an empty name')
  if not isinstance(adapter, LoraConfig | AdaLoraConfig):
    kind = f'is of the kind {adapter.kind}' if adapter else 'has no weights'
    raise UserError(f'the adapter {name!r} {kind}: only LoRA and AdaLoRA can be used by name, '
                    'beside others in a batch; load this one alone, without a name')
  return adapter


def _stacked(adapters: Sequence[AdapterConfig], trees: Sequence[Any], module: str = '') -> Any:
  """Returns the weights of all adapters side by side; A contains AdaLoRA's E, and B the scale."""
  if not any('a' in tree for tree in trees):
    names = dict.fromkeys(name for tree in trees for name in tree)
    return {name: _stacked(adapters, [tree.get(name, {}) for tree in trees], name)
            for name in names}
  a_LIr, b_LrO = [], []
  for adapter, tree in zip(adapters, trees, strict=True):
    if tree and isinstance(adapter, LoraConfig | AdaLoraConfig):
      a, b = (np.asarray(tree[name], np.float32) for name in 'ab')
      if 'e' in tree:
        e_Lr = np.asarray(tree['e'], np.float32)
        a = a * e_Lr.reshape(len(e_Lr), *[1] * (a.ndim - 2), -1)
      a_LIr.append(a)
      b_LrO.append(b * np.float32(adapter.scale_of(module)))
  return {'a': np.concatenate(a_LIr, -1), 'b': np.concatenate(b_LrO, 1)}
