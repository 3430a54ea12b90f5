"""Reads and writes Hugging Face directories: config.json, safetensors, tokenizer.json.

Weights are read tensor by tensor, straight into the arrays of each device.
"""

import collections
import functools
import json
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors
from jax.sharding import Mesh
from safetensors.numpy import save_file

from toolformer_jax import sharding
from toolformer_jax.checkpoints.hf_config import model_type, read_config, write_config
from toolformer_jax.checkpoints.hf_weights import Weight, weights
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, decoder_on
from toolformer_jax.runs import write_json
from toolformer_jax.tokenizer import Tokenizer

_CONFIG, _WEIGHTS, _INDEX = 'config.json', 'model.safetensors', 'model.safetensors.index.json'
_PREFIX = 'transformer.'
# Buffers that older files hold: masks, and the rotary embeddings' frequencies.
_BUFFERS = re.compile(r'\.attn\.(bias|masked_bias)$|rotary_emb\.inv_freq$|\.embed_positions$')
_TIED = 'lm_head.weight'
_DTYPES = {'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16}
_FILE_BYTES = 4 * 2**30


def is_directory(path: pathlib.Path) -> bool:
  """Tells whether `path` is a Hugging Face directory with weights that can be read."""
  return (path / _CONFIG).is_file() and ((path / _WEIGHTS).is_file() or (path / _INDEX).is_file())


def load_directory(path: pathlib.Path, mesh: Mesh, dtype: str = 'float32') -> LanguageModel:
  """Returns the model of a Hugging Face directory on `mesh`, its weights in float32.

  Args:
    path: holds config.json, model.safetensors (or its index and shards), and a tokenizer.
    mesh: where each weight is read to, the shard of a device straight from the file.
    dtype: of the computation.

  Raises:
    UserError: a file is missing or broken, or is not understood.
  """
  fields = _read_json(path / _CONFIG)
  kind, config = read_config(fields, str(path / _CONFIG))
  tokenizer = load_tokenizer(path, fields)
  table = weights(kind, config)
  tensors = _Tensors(path)
  tensors.check(table, config)
  decoder = decoder_on(mesh, config.replace(dtype=dtype))
  abstract = sharding.laid_out(abstract_variables(decoder), mesh)['params']
  params: dict[str, Any] = {}
  for weight in table:
    wanted = functools.reduce(dict.__getitem__, weight.path, abstract)
    _put(params, weight.path, tensors.place(weight, wanted))
  return LanguageModel(decoder, {'params': params}, tokenizer, mesh)


def load_tokenizer(path: pathlib.Path, fields: dict[str, Any]) -> Tokenizer:
  """Returns the tokenizer of a directory; `fields` of its config.json name its special ids.

  Raises:
    UserError: there is none, or it is of a kind that is not supported.
  """
  end = fields.get('eos_token_id')
  ids = {'bos_id': fields.get('bos_token_id'), 'eos_id': end[0] if isinstance(end, list) else end,
         'vocab_size': fields['vocab_size']}
  if (path / 'tokenizer.json').is_file():
    return Tokenizer.from_file(path / 'tokenizer.json', **ids)
  if not all((path / name).is_file() for name in ('vocab.json', 'merges.txt')):
    raise UserError(f'{path} holds no tokenizer: neither tokenizer.json nor, as GPT-2 has it, '
                    'vocab.json and merges.txt')
  vocab = _read_json(path / 'vocab.json')
  lines = (path / 'merges.txt').read_text('utf-8').splitlines()
  merges = [tuple(line.split()) for line in lines if line and not line.startswith('#version')]
  special = [token for token in ('<|endoftext|>',) if token in vocab]
  return Tokenizer.byte_level_bpe(sorted(vocab, key=vocab.get), merges, special,
                                  split_digits=False, **ids)


class _Tensors:
  """The tensors of a directory, by name."""

  def __init__(self, path: pathlib.Path):
    names = [_WEIGHTS]
    if not (path / _WEIGHTS).is_file():
      names = sorted(set(_read_json(path / _INDEX).get('weight_map', {}).values()))
    self._path, self._files, self._in = path, {}, {}
    for name in names:
      if pathlib.PurePath(name).name != name:
        raise UserError(f'{path / _INDEX} names a file elsewhere: {name!r}')
      self._open(path / name)
    # Old files of GPT-2 lack the prefix of its names.
    self._prefix = '' if any(name.startswith(_PREFIX) for name in self._in) else _PREFIX

  def _open(self, file: pathlib.Path) -> None:
    try:
      opened = safetensors.safe_open(file, framework='numpy')
      self._in |= dict.fromkeys(opened.keys(), opened)
    except (OSError, safetensors.SafetensorError) as error:
      raise UserError(f'{file} is no whole safetensors file: {error}') from error

  def _name(self, name: str) -> str:
    """Returns how this directory calls the tensor `name`."""
    return name.removeprefix(self._prefix)

  def check(self, table: list[Weight], config: DecoderConfig) -> None:
    """Checks that the tensors are those of `table`, no fewer and no more, in its shapes.

    Raises:
      UserError: one is missing, too many, or of another shape or dtype.
    """
    expected = {self._name(name): weight.shape
                for weight in table for name in tensor_names(weight, config.layers)}
    for name, shape in expected.items():
      if name not in self._in:
        raise UserError(f'{self._path} lacks the tensor {name}')
      header = self._in[name].get_slice(name)
      if tuple(header.get_shape()) != shape:
        raise UserError(f'{self._path}: the tensor {name} has the shape '
                        f'{tuple(header.get_shape())}, and {_CONFIG} says {shape}')
      if header.get_dtype() not in _DTYPES:
        raise UserError(f'{self._path}: the tensor {name} is of the type {header.get_dtype()}; '
                        f'known are {", ".join(_DTYPES)}')
    for name in sorted(self._in.keys() - expected.keys()):
      if not _BUFFERS.search(name) and not (name == _TIED and config.tied_head):
        raise UserError(f'{self._path} has a tensor {name} that {_CONFIG} has no place for')

  def place(self, weight: Weight, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns a parameter on its devices, each of which is given its own part."""
    parts = wanted.sharding.addressable_devices_indices_map(wanted.shape)
    arrays = [jax.device_put(self._part(weight, index, wanted.shape), device, may_alias=True)
              for device, index in parts.items()]
    return jax.make_array_from_single_device_arrays(wanted.shape, wanted.sharding, arrays)

  def _part(self, weight: Weight, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Returns one device's part of a parameter of that shape."""
    part = _buffer([len(range(*i.indices(n))) for i, n in zip(index, shape, strict=True)])
    if not weight.of_block:
      part[...] = self._tensor(weight, weight.name)[index]
      return part
    for row, layer in enumerate(range(*index[0].indices(shape[0]))):
      part[row] = self._tensor(weight, weight.name.format(layer))[index[1:]]
    return part

  def _tensor(self, weight: Weight, name: str) -> np.ndarray:
    name = self._name(name)
    return weight.ours(self._in[name].get_tensor(name))


def _buffer(shape: Sequence[int]) -> np.ndarray:
  """Returns an array of float32 at a multiple of 64 bytes: a CPU device takes it without a copy."""
  size = 4 * math.prod(shape)
  raw = np.empty(size + 64, np.uint8)
  start = -raw.ctypes.data % 64
  return raw[start:start + size].view(np.float32).reshape(shape)


def tensor_names(weight: Weight, layers: int) -> list[str]:
  """Returns the names of the tensors that a parameter lies in: one for each layer, or one."""
  return [weight.name.format(i) for i in range(layers)] if weight.of_block else [weight.name]


def save_directory(path: pathlib.Path, model: LanguageModel) -> None:
  """Writes `model` as a Hugging Face directory that transformers loads, adapters merged.

  Raises:
    UserError: the directory can not be written.
  """
  config = model.config.replace(lora_rank=0)
  ids = {'bos_token_id': model.tokenizer.bos_id, 'eos_token_id': model.tokenizer.eos_id}
  try:
    path.mkdir(parents=True, exist_ok=True)
    _save_tensors(path, _exported(model, config))
    model.tokenizer.export(path)
    write_json(path / _CONFIG, write_config(config) | ids)  # last: with it, the directory is whole
  except OSError as error:
    raise UserError(f'can not write {path}: {error.strerror}') from error


def _exported(model: LanguageModel, config: DecoderConfig) -> Iterator[tuple[str, np.ndarray]]:
  """Yields the tensors of a checkpoint, those of one layer after the other."""
  sharing: dict[str, list[Weight]] = collections.defaultdict(list)
  for weight in weights(model_type(config), config):
    sharing[weight.name].append(weight)
  for name, table in sharing.items():
    parameters = [merged(model, weight.path) for weight in table]
    if not table[0].of_block:
      yield name, table[0].theirs(parameters)
    else:
      for layer in range(config.layers):
        yield name.format(layer), table[0].theirs([p[layer] for p in parameters])


def merged(model: LanguageModel, path: tuple[str, ...]) -> np.ndarray:
  """Returns a parameter, an adapter's share in it (Hu et al. 2021)."""
  def leaf(tree, keys):
    return functools.reduce(lambda node, key: node.get(key, {}), keys, tree)
  parameter = np.asarray(leaf(model.variables['params'], path), np.float32)
  adapter = leaf(model.variables.get('lora', {}), path[:-1])
  if path[-1] != 'kernel' or not adapter:
    return parameter
  L, rank = len(parameter), model.config.lora_rank
  a_LIr, b_LrO = (np.asarray(adapter[name], np.float32) for name in 'ab')
  product = a_LIr.reshape(L, -1, rank) @ b_LrO.reshape(L, rank, -1)
  return parameter + model.config.lora_alpha / rank * product.reshape(parameter.shape)


def _save_tensors(path: pathlib.Path, tensors: Iterator[tuple[str, np.ndarray]]) -> None:
  """Writes `tensors` to as many files as they need, and the index where there are several."""
  files, size = [{}], 0
  where: dict[str, str] = {}
  for name, tensor in tensors:
    if size and size + tensor.nbytes > _FILE_BYTES:
      _write_part(path, len(files), files[-1], where)
      files.append({})
      size = 0
    files[-1][name] = np.ascontiguousarray(tensor)
    size += tensor.nbytes
  if len(files) == 1:
    save_file(files[0], path / _WEIGHTS, {'format': 'pt'})
    return
  _write_part(path, len(files), files[-1], where)
  write_json(path / _INDEX, {'metadata': {}, 'weight_map': where})


def _write_part(path: pathlib.Path, number: int, tensors: dict[str, np.ndarray],
                where: dict[str, str]) -> None:
  """Writes one of several files and lets go of its tensors."""
  name = f'model-{number:05}.safetensors'
  save_file(tensors, path / name, {'format': 'pt'})
  where |= dict.fromkeys(tensors, name)
  tensors.clear()


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value


def _read_json(file: pathlib.Path) -> dict[str, Any]:
  try:
    value = json.loads(file.read_text('utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(f'can not read {file}: {error}') from error
  if not isinstance(value, dict):
    raise UserError(f'{file} holds no JSON object')
  return value
