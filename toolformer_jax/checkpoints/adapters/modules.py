"""Which linear layer of transformers holds which of our modules."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toolformer_jax.checkpoints.families.registry import family_of
from toolformer_jax.checkpoints.families.weights import group_by_tensor
from toolformer_jax.checkpoints.tensors import leaf
from toolformer_jax.models.adapter_config import is_target
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel

Path = tuple[str, ...]  # of a module of ours in the tree of weights
Weights = dict[Path, dict[str, np.ndarray]]  # flat arrays [L, ...] by module and name


class Linear(NamedTuple):
  """A linear layer of transformers, one in each block.

  Attributes:
    name: its name; `{}` stands for the number of the layer.
    short: the end of the name that tells it from the others.
    parts: the paths of our modules that it holds, in the order of its outputs.
  """

  name: str
  short: str
  parts: tuple[Path, ...]

  def targets(self, config: DecoderConfig) -> list[Path]:
    """Returns those of its parts that have weights of the adapter."""
    return [path for path in self.parts if is_target(config.adapter, path[-1])]


def linears(config: DecoderConfig) -> list[Linear]:
  """Returns the linear layers of a block in transformers."""
  config = config.replace(adapter=None)
  tables = [table for table in group_by_tensor(family_of(config).weights(config))
            if table[0].of_block and table[0].path[-1] == 'kernel']
  names = [table[0].name.removesuffix('.weight') for table in tables]
  return [Linear(name, _short(name, names), tuple(weight.path[:-1] for weight in table))
          for name, table in zip(names, tables, strict=True)]


def block_name(config: DecoderConfig) -> str:
  """Returns the name of a block in transformers; `{}` stands for the number of the layer."""
  return linears(config)[0].name.partition('{}')[0] + '{}'


def _short(name: str, names: Sequence[str]) -> str:
  """Returns the last part of a name, or the last two if another name has the same last part."""
  last = name.rpartition('.')[2]
  same = sum(other.rpartition('.')[2] == last for other in names)
  return last if same == 1 else '.'.join(name.split('.')[-2:])


def by_name(config: DecoderConfig) -> dict[str, tuple[Linear, int]]:
  """Returns all linear layers and the numbers of their layers, by their names in transformers."""
  return {linear.name.format(layer): (linear, layer)
          for linear in linears(config) for layer in range(config.layers)}


def layer_weights(model: LanguageModel, path: Path, layer: int) -> dict[str, np.ndarray]:
  """Returns the weights of the adapter of one module in one layer, float32."""
  stacks: Mapping[str, Any] = leaf(model.variables[ADAPTER], path)
  return {name: np.asarray(stack[layer], np.float32) for name, stack in stacks.items()}


def adapted(model: LanguageModel) -> Iterator[tuple[Linear, int]]:
  """Yields the linear layers with weights of the adapter, and the numbers of their layers."""
  for linear in linears(model.config):
    if linear.targets(model.config):
      yield from ((linear, layer) for layer in range(model.config.layers))


def target_modules(config: DecoderConfig, paths: Sequence[Path]) -> tuple[str, ...]:
  """Returns the names of the modules at `paths`; () for all modules of a block."""
  names = {path[-1] for path in paths}
  return () if names == config.modules.keys() else tuple(
      name for name in config.modules if name in names)


def nested(weights: Weights, shapes: Any) -> Any:
  """Returns `weights` as the tree that `shapes` is, each array in its shape."""
  tree: dict[str, Any] = {}
  for path, arrays in weights.items():
    node = functools.reduce(lambda inner, key: inner.setdefault(key, {}), path, tree)
    for name, array in arrays.items():
      shape = functools.reduce(dict.__getitem__, (*path, name), shapes).shape
      node[name] = np.ascontiguousarray(array.reshape(shape), np.float32)
  return tree
