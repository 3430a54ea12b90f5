"""Builds a model from the tensors of a checkpoint, whatever the format of its files.

Weights are read tensor by tensor, directly into the arrays of each device.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import sharding
from toolformer_jax.checkpoints.families.family import Family
from toolformer_jax.checkpoints.families.weights import Weight
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.int4 import GROUP, pack_rows, round_kernel
from toolformer_jax.models.int8 import KERNEL_SCALE
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder
from toolformer_jax.tokenizer import Tokenizer

# Buffers in older files: attention masks, and the frequencies of rotary embeddings.
_BUFFERS = re.compile(r'\.attn\.(bias|masked_bias)$|rotary_emb\.inv_freq$|\.embed_positions$')
_TIED = 'lm_head.weight'  # may be stored although it is tied to the embeddings
_DTYPES = ('float32', 'float16', 'bfloat16')


class Header(NamedTuple):
  """Shape and name of the dtype of a tensor in a file."""

  shape: tuple[int, ...]
  dtype: str


# Returns the codes of a matrix and their scales, of the same shape, if it is stored so in 4 or 8
# bits.
ReadCodes = Callable[[str, int], tuple[np.ndarray, np.ndarray] | None]


class Tensors(Protocol):
  """The tensors of a checkpoint, with the names and shapes of transformers."""

  @property
  def where(self) -> str:
    """The file or directory, for errors."""
    ...

  @property
  def headers(self) -> Mapping[str, Header]:
    """Headers of all tensors, by name."""
    ...

  def read(self, name: str) -> np.ndarray:
    """Returns the tensor called `name`, in a dtype of numpy."""
    ...


def build_model(family: Family, config: DecoderConfig, tensors: Tensors,
                load_tokenizer: Callable[[], Tokenizer], mesh: Mesh,
                read_codes: ReadCodes = lambda name, bits: None) -> LanguageModel:
  """Returns a model with the weights in `tensors` on `mesh`: float32; in int8 and int4, codes.

  Args:
    family: the model family.
    config: configuration of the decoder.
    tensors: the weights. Each device reads its own shards.
    load_tokenizer: returns the tokenizer. It is called after the vocabulary size in `config` has
      been compared with the embedding table.
    mesh: devices of the model.
    read_codes: returns codes and scales of a matrix that is stored in as many bits, and None of
      others; these are rounded if the model computes in int8 or int4.

  Raises:
    UserError: a tensor is missing, unexpected, or of another shape or dtype than `config` says; or
      the tokenizer has ids that the model does not have.
  """
  table = family.weights(config)
  check_tensors(tensors, table, config)
  _check_tied_head(tensors, table)
  tokenizer = load_tokenizer()
  if tokenizer.highest_id >= config.vocab_size:
    raise UserError(f'{tensors.where}: the tokenizer has ids up to {tokenizer.highest_id}, but the '
                    f'model has only {config.vocab_size} embeddings; were they resized?')
  decoder = make_decoder(mesh, config)
  abstract = sharding.abstract_with_sharding(abstract_variables(decoder), mesh)['params']
  params: dict[str, Any] = {}
  for weight in table:
    wanted = leaf(abstract, weight.path)
    if not jnp.issubdtype(wanted.dtype, jnp.integer):
      _put(params, weight.path, _place(tensors, weight, wanted))
      continue
    scales = (*weight.path[:-1], KERNEL_SCALE)
    for path, array in zip((weight.path, scales), _place_codes(
        tensors, weight, wanted, leaf(abstract, scales), read_codes), strict=True):
      _put(params, path, array)
  return LanguageModel(decoder, {'params': params}, tokenizer, mesh)


def check_tensors(tensors: Tensors, table: Sequence[Weight], config: DecoderConfig) -> None:
  """Checks that a checkpoint has exactly the tensors of `table`, with the right shapes.

  Raises:
    UserError: a tensor is missing, unexpected, or of another shape or dtype.
  """
  if config.layers > len(tensors.headers):  # A list of all names might not fit in memory.
    raise UserError(f'{tensors.where} has {len(tensors.headers)} tensors, too few for the '
                    f'{config.layers} layers of the configuration')
  expected = {name: weight.shape
              for weight in table for name in weight.tensor_names(config.layers)}
  for name, shape in expected.items():
    if name not in tensors.headers:
      raise UserError(f'{tensors.where} lacks the tensor {name}')
    found = tensors.headers[name]
    if tuple(found.shape) != shape:
      raise UserError(f'{tensors.where}: the tensor {name} has the shape {tuple(found.shape)}, but '
                      f'the configuration says {shape}')
    if found.dtype not in _DTYPES:
      raise UserError(f'{tensors.where}: the tensor {name} has the dtype {found.dtype}; supported '
                      f'are {", ".join(_DTYPES)}')
  for name in sorted(tensors.headers.keys() - expected.keys()):
    if not _BUFFERS.search(name) and not (name == _TIED and config.tied_head):
      raise UserError(f'{tensors.where} has a tensor {name} that does not belong to a model of '
                      'this configuration')


def _check_tied_head(tensors: Tensors, table: Sequence[Weight]) -> None:
  """Checks a projection to the vocabulary that a checkpoint has in addition to the embeddings."""
  if _TIED in {weight.name for weight in table} or _TIED not in tensors.headers:
    return
  embedding, = (weight.name for weight in table if weight.path == ('embedding',))
  if not np.array_equal(tensors.read(_TIED), tensors.read(embedding)):
    raise UserError(f'{tensors.where}: lm_head.weight differs from the embeddings, although '
                    'tie_word_embeddings is true; set it to false in config.json')


def _place(tensors: Tensors, weight: Weight, wanted: jax.ShapeDtypeStruct) -> jax.Array:
  """Returns a parameter on its devices, in float32."""
  placed, = _place_all(weight, (wanted,), tensors.where,
                       lambda name: (weight.from_tensor(tensors.read(name)),))
  return placed


def _place_codes(tensors: Tensors, weight: Weight, wanted: jax.ShapeDtypeStruct,
                 wanted_scales: jax.ShapeDtypeStruct, read_codes: ReadCodes
                 ) -> tuple[jax.Array, jax.Array]:
  """Returns the codes and scales of a kernel on their devices: stored ones, or rounded here."""
  scale_dims, dtype = len(wanted_scales.shape) - weight.of_block, wanted.dtype
  def read(name: str) -> tuple[np.ndarray, ...]:
    found = read_codes(name, 8 if dtype == jnp.int8 else 4)
    if found is None:
      kernel = weight.from_tensor(tensors.read(name))
      _check_finite(kernel, name, tensors.where)
      try:
        return round_kernel(kernel, dtype, scale_dims)
      except UserError as error:
        raise UserError(f'{tensors.where}: the tensor {name}: {error}') from error
    codes, scales = map(weight.from_tensor, found)
    if dtype == jnp.int8:  # all inputs of an output have the same scale: that of the first input
      return codes, scales[(0,) * (codes.ndim - scale_dims)]
    outputs = codes.shape[codes.ndim - scale_dims + 1:]
    return pack_rows(codes.reshape(-1, *outputs)), scales.reshape(-1, *outputs)[::GROUP]
  codes, scales = _place_all(weight, (wanted, wanted_scales), tensors.where, read)
  return codes, scales


def _place_all(weight: Weight, wanted: Sequence[jax.ShapeDtypeStruct], where: str,
               read: Callable[[str], tuple[np.ndarray, ...]]) -> list[jax.Array]:
  """Returns arrays on their devices. Each device receives only its own shards.

  Args:
    weight: says whether there is an array for each layer.
    wanted: shape, dtype and sharding of each array.
    where: the checkpoint, for errors.
    read: returns the arrays (of one layer) that a tensor holds.
  """
  indices = [one.sharding.addressable_devices_indices_map(one.shape) for one in wanted]
  parts = [[_buffer([len(range(*i.indices(n))) for i, n in zip(index, one.shape, strict=True)],
                    one.dtype) for index in of_devices.values()]
           for one, of_devices in zip(wanted, indices, strict=True)]
  for layer, name in enumerate(weight.tensor_names(wanted[0].shape[0])):
    # Each tensor is read once for all devices.
    for values, of_devices, own in zip(read(name), indices, parts, strict=True):
      for index, part in zip(of_devices.values(), own, strict=True):
        # The axis of layers is never sharded.
        target, shard = (part[layer], index[1:]) if weight.of_block else (part, index)
        target[...] = values[shard]
        _check_finite(target, name, where)
  return [jax.make_array_from_single_device_arrays(
      one.shape, one.sharding, [jax.device_put(part, device, may_alias=True)
                                for part, device in zip(own, of_devices, strict=True)])
          for one, of_devices, own in zip(wanted, indices, parts, strict=True)]


def is_finite(values: Any) -> bool:
  """Returns whether all numbers of an array are finite."""
  values = np.asarray(values)
  # Both are NaN if any number is; unlike np.isfinite(values), they need no memory.
  return not values.size or bool(np.isfinite([values.min(), values.max()]).all())


def _check_finite(values: np.ndarray, name: str, where: str) -> None:
  """Raises UserError for a tensor whose numbers are not all finite."""
  if not is_finite(values):
    raise UserError(f'{where}: the tensor {name} has numbers that are not finite (NaN or '
                    'infinity); the file is damaged, or the training of the model diverged')


def _buffer(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """Returns an array aligned to 64 bytes, which JAX uses on CPU without a copy."""
  size = dtype.itemsize * math.prod(shape)
  raw = np.empty(size + 64, np.uint8)
  start = -raw.ctypes.data % 64
  return raw[start:start + size].view(dtype).reshape(shape)


def leaf(tree: dict[str, Any], path: tuple[str, ...]) -> Any:
  """Returns the value at `path` in nested dictionaries; an empty dictionary if there is none."""
  return functools.reduce(lambda node, key: node.get(key, {}), path, tree)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value
