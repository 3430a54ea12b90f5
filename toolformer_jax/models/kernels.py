"""The kernels of the matrix products of blocks: found by path, and as matrices."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Params = dict[str, Any]
# Number of dimensions of a kernel in a single block; stacked blocks have one more, the layers.
_DIMENSIONS = {'attention': 3, 'mlp': 2}


def block_kernels(block: Params) -> dict[str, Any]:
  """Returns the kernels of a block, or of stacked blocks, by paths such as 'mlp/down'."""
  return {f'{part}/{name}': product['kernel'] for part in _DIMENSIONS
          for name, product in block[part].items() if 'kernel' in product}


def cast_kernels(block: Params, dtype: str) -> Params:
  """Returns a block, or stacked blocks, with kernels of another dtype."""
  kernels = block_kernels(block).items()
  return with_kernels(block, {path: kernel.astype(dtype) for path, kernel in kernels})


def as_matrix(path: str, kernel: Any) -> Any:
  """Returns a kernel as a matrix [I, O], or those of stacked blocks as matrices [L, I, O].

  The inputs are the dimensions that the product contracts: heads and their size in
  'attention/out', and one dimension elsewhere.
  """
  layers = kernel.ndim - _DIMENSIONS[path.split('/')[0]]
  end = layers + (2 if path == 'attention/out' else 1)
  return kernel.reshape(*kernel.shape[:layers], math.prod(kernel.shape[layers:end]), -1)


def with_kernels(block: Params, changed: Mapping[str, np.ndarray | jax.Array]) -> Params:
  """Returns a block, or stacked blocks, with other kernels by their paths, such as [I, O]."""
  block = dict(block)
  for path, kernel in changed.items():
    part, name = path.split('/')
    shape = block[part][name]['kernel'].shape
    block[part] = block[part] | {name: block[part][name] | {'kernel': kernel.reshape(shape)}}
  return block
