"""From the tensors of a checkpoint, whatever its files are, to parameters on their devices.

Weights are read tensor by tensor, straight into the arrays of each device.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import sharding
from toolformer_jax.checkpoints.hf_weights import Weight, tensor_names, weights
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder
from toolformer_jax.tokenizer import Tokenizer

# Buffers that older files hold: masks, and the rotary embeddings' frequencies.
_BUFFERS = re.compile(r'\.attn\.(bias|masked_bias)$|rotary_emb\.inv_freq$|\.embed_positions$')
_TIED = 'lm_head.weight'
_DTYPES = ('float32', 'float16', 'bfloat16')


class Header(NamedTuple):
  """What a file says of a tensor: its shape, and the name of its dtype."""

  shape: tuple[int, ...]
  dtype: str


class Tensors(Protocol):
  """The tensors of a checkpoint, named and laid out as in transformers.

  Attributes:
    where: the file or directory, for errors.
    headers: of all tensors, by name.
  """

  where: str
  headers: Mapping[str, Header]

  def read(self, name: str) -> np.ndarray:
    """Returns the tensor called `name`, in a dtype that numpy knows."""
    ...


def load(kind: str, config: DecoderConfig, tokenizer: Tokenizer, tensors: Tensors,
         mesh: Mesh) -> LanguageModel:
  """Returns a model with the weights in `tensors`, in float32, on `mesh`.

  Args:
    kind: its type in transformers, 'llama' for instance.
    config: of the decoder.
    tokenizer: of the model.
    tensors: the weights.
    mesh: where each weight is read to, the shard of a device straight from the file.

  Raises:
    UserError: a tensor is missing, too many, or of another shape or dtype than `config` says; or
      the tokenizer has ids that the model has not.
  """
  if tokenizer.highest_id >= config.vocab_size:
    raise UserError(f'{tensors.where}: its tokenizer has ids up to {tokenizer.highest_id}, and the '
                    f'model {config.vocab_size} tokens only; were its embeddings resized?')
  table = weights(kind, config)
  check(tensors, table, config)
  decoder = make_decoder(mesh, config)
  abstract = sharding.abstract_with_sharding(abstract_variables(decoder), mesh)['params']
  params: dict[str, Any] = {}
  for weight in table:
    wanted = functools.reduce(dict.__getitem__, weight.path, abstract)
    _put(params, weight.path, _place(tensors, weight, wanted))
  return LanguageModel(decoder, {'params': params}, tokenizer, mesh)


def check(tensors: Tensors, table: Sequence[Weight], config: DecoderConfig) -> None:
  """Checks that the tensors are those of `table`, no fewer and no more, in its shapes.

  Raises:
    UserError: one is missing, too many, or of another shape or dtype.
  """
  if config.layers > len(tensors.headers):  # before a list of them is made
    raise UserError(f'{tensors.where} has {len(tensors.headers)} tensors, too few for the '
                    f'{config.layers} layers that the configuration says')
  expected = {name: weight.shape
              for weight in table for name in tensor_names(weight, config.layers)}
  for name, shape in expected.items():
    if name not in tensors.headers:
      raise UserError(f'{tensors.where} lacks the tensor {name}')
    found = tensors.headers[name]
    if tuple(found.shape) != shape:
      raise UserError(f'{tensors.where}: the tensor {name} has the shape {tuple(found.shape)}, and '
                      f'the configuration says {shape}')
    if found.dtype not in _DTYPES:
      raise UserError(f'{tensors.where}: the tensor {name} is of the type {found.dtype}; known are '
                      f'{", ".join(_DTYPES)}')
  for name in sorted(tensors.headers.keys() - expected.keys()):
    if not _BUFFERS.search(name) and not (name == _TIED and config.tied_head):
      raise UserError(f'{tensors.where} has a tensor {name} that the configuration has no place '
                      'for')


def _place(tensors: Tensors, weight: Weight, wanted: jax.ShapeDtypeStruct) -> jax.Array:
  """Returns a parameter on its devices, each of which is given its own part."""
  shape = wanted.shape
  where = wanted.sharding.addressable_devices_indices_map(shape)
  parts = [_buffer([len(range(*i.indices(n))) for i, n in zip(index, shape, strict=True)])
           for index in where.values()]
  names = tensor_names(weight, shape[0])
  for layer, name in enumerate(names):  # each is read once, for all devices
    tensor = weight.ours(tensors.read(name))
    for index, part in zip(where.values(), parts, strict=True):
      if weight.of_block:
        part[layer] = tensor[index[1:]]  # no mesh splits the layers
      else:
        part[...] = tensor[index]
  arrays = [jax.device_put(part, device, may_alias=True)
            for part, device in zip(parts, where, strict=True)]
  return jax.make_array_from_single_device_arrays(shape, wanted.sharding, arrays)


def _buffer(shape: Sequence[int]) -> np.ndarray:
  """Returns an array of float32 at a multiple of 64 bytes: a CPU device takes it without a copy."""
  size = 4 * math.prod(shape)
  raw = np.empty(size + 64, np.uint8)
  start = -raw.ctypes.data % 64
  return raw[start:start + size].view(np.float32).reshape(shape)


def leaf(tree: dict[str, Any], path: tuple[str, ...]) -> Any:
  """Returns what lies in nested dictionaries at `path`; an empty one if there is nothing."""
  return functools.reduce(lambda node, key: node.get(key, {}), path, tree)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value
