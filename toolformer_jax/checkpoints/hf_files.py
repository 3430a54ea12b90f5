"""The weight files of a Hugging Face directory: safetensors, or PyTorch's .bin files.

Safetensors may be compressed, see `zstd_files`.

A .bin file is a pickle. It is only read by torch.load(weights_only=True), which runs no code of the
file.
"""

import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import jax
import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy
import numpy as np
import safetensors
from etils import epath
from safetensors.numpy import save_file

from toolformer_jax.checkpoints.tensors import Header, Tensors
from toolformer_jax.checkpoints.zstd_files import plain_file, stored_file
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import read_json

if TYPE_CHECKING:
  import torch

SAFETENSORS, SAFETENSORS_INDEX = 'model.safetensors', 'model.safetensors.index.json'
_BIN, _BIN_INDEX = 'pytorch_model.bin', 'pytorch_model.bin.index.json'
_PREFIX = 'transformer.'
_DTYPES = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}
_STORED = {'float32': 'F32', 'float16': 'F16', 'int8': 'I8', 'uint8': 'U8'}
_METADATA = {'format': 'pt'}


def has_weights(path: epath.Path) -> bool:
  """Returns whether the directory `path` has weights in a supported format."""
  return _has_safetensors(path) or any((path / name).is_file() for name in (_BIN, _BIN_INDEX))


def _has_safetensors(path: epath.Path) -> bool:
  return bool(stored_file(path, SAFETENSORS)) or (path / SAFETENSORS_INDEX).is_file()


def open_weights(path: epath.Path) -> Tensors:
  """Opens the weights of a Hugging Face directory. Safetensors take precedence over .bin files.

  Raises:
    UserError: a file is missing or broken, or torch is needed and not installed.
  """
  if _has_safetensors(path):
    return SafetensorsFiles(path)
  return TorchFiles(path)


def save_tensors(tensors: dict[str, np.ndarray], file: epath.Path) -> None:
  """Writes a safetensors file on disk, which others may read as far as the umask lets them."""
  file.touch()
  mode = os.stat(file).st_mode
  save_file(tensors, file, _METADATA)
  os.chmod(file, mode)  # the library makes it readable to its owner alone


def file_bytes(tensors: Mapping[str, jax.ShapeDtypeStruct]) -> int:
  """Returns the size of the file that `save_tensors` writes for tensors, in bytes."""
  # The library orders tensors by the size of their elements, and stores signed ones first.
  order = sorted(tensors.items(),
                 key=lambda item: (-item[1].dtype.itemsize, item[1].dtype.kind, item[0]))
  header: dict[str, Any] = {'__metadata__': _METADATA}
  end = 0
  for name, tensor in order:
    start, end = end, end + tensor.size * tensor.dtype.itemsize
    header[name] = {'dtype': _STORED[tensor.dtype.name], 'shape': tensor.shape,
                    'data_offsets': [start, end]}
  length = len(json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode())
  return 8 + -(-length // 8) * 8 + end


def _files(path: epath.Path, single: str, index: str) -> list[epath.Path]:
  """Returns the files with the tensors: the single one, or those of the index.

  Raises:
    UserError: the index is broken, or lists a file that is not in `path`.
  """
  if found := stored_file(path, single):
    return [found]
  where = read_json(path / index).get('weight_map')
  if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
    raise UserError(f'{path / index} has no valid weight_map')
  files = []
  for name in sorted(set(where.values())):
    if pathlib.PurePath(name).name != name:
      raise UserError(f'{path / index} lists a file in another directory: {name!r}')
    if not (found := stored_file(path, name)):
      raise UserError(f'{path / index} lists {name}, which is missing; download it')
    files.append(found)
  return files


def _named_as_today(names: Collection[str]) -> dict[str, str]:
  """Returns the names in the file by current names: old files of GPT-2 lack the prefix."""
  # The names of Llama have another prefix.
  lacks = not any(name.startswith((_PREFIX, 'model.')) for name in names)
  return {_PREFIX + name if lacks and not name.startswith('lm_head.') else name: name
          for name in names}


class SafetensorsFiles:
  """The tensors of safetensors files."""

  def __init__(self, path: epath.Path):
    """Opens the files of the directory `path`, which are memory-mapped."""
    self.where = str(path)
    self._in: dict[str, safetensors.safe_open] = {}
    for file in _files(path, SAFETENSORS, SAFETENSORS_INDEX):
      try:
        with plain_file(file) as plain:
          opened = safetensors.safe_open(plain, framework='numpy')
        self._in |= dict.fromkeys(opened.keys(), opened)
      except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f'{file} is not a complete safetensors file: {error}') from error
    self._names = _named_as_today(self._in)
    self.headers = {name: self._header(theirs) for name, theirs in self._names.items()}

  def _header(self, name: str) -> Header:
    found = self._in[name].get_slice(name)
    return Header(tuple(found.get_shape()), _DTYPES.get(found.get_dtype(), found.get_dtype()))

  def read(self, name: str) -> np.ndarray:
    """Returns the tensor called `name`."""
    name = self._names[name]
    return self._in[name].get_tensor(name)


class TorchFiles:
  """The tensors of PyTorch files. Needs the extra `torch`."""

  def __init__(self, path: epath.Path):
    """Opens the files of the directory `path`, memory-mapped if their format allows."""
    self.where = str(path)
    self._tensors: dict[str, torch.Tensor] = {}
    for file in _files(path, _BIN, _BIN_INDEX):
      self._tensors |= _load_tensors(file)
    self._names = _named_as_today(self._tensors)
    self.headers = {name: self._header(theirs) for name, theirs in self._names.items()}

  def _header(self, name: str) -> Header:
    tensor = self._tensors[name]
    return Header(tuple(tensor.shape), str(tensor.dtype).removeprefix('torch.'))

  def read(self, name: str) -> np.ndarray:
    """Returns the tensor called `name` in float32, as torch cannot convert bfloat16 to numpy."""
    return self._tensors[self._names[name]].detach().float().numpy()


def _load_tensors(file: epath.Path) -> dict[str, Any]:
  """Returns the tensors in a .bin file. Other objects in it are not created."""
  try:
    import torch
  except ImportError as error:
    raise UserError(f'{file} is a PyTorch file, and torch is not installed; '
                    "pip install 'toolformer_jax[torch]', or convert it to safetensors") from error
  try:
    tensors = torch.load(os.fspath(file), map_location='cpu', weights_only=True, mmap=_is_zip(file))
  except Exception as error:  # invalid pickle, invalid zip file, forbidden object, ...
    raise UserError(f'{file} is broken, or contains something else than weights '
                    f'({type(error).__name__}); no code in it was run') from error
  if not isinstance(tensors, dict) or not all(
      isinstance(name, str) and isinstance(tensor, torch.Tensor)
      for name, tensor in tensors.items()):
    raise UserError(f'{file} does not contain a dictionary of tensors')
  return tensors


def _is_zip(file: epath.Path) -> bool:
  """Returns whether a file has the zip format of PyTorch 1.6, which can be memory-mapped."""
  with open(file, 'rb') as opened:
    return opened.read(2) == b'PK'
