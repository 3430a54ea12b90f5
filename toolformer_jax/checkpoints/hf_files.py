"""The files of a Hugging Face directory that hold weights: safetensors, or PyTorch's .bin.

A .bin file is a pickle. It is read by torch's loader of weights alone, which runs no code, and
never by pickle itself.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_dtypes  # noqa: F401 - lets numpy know bfloat16
import numpy as np
import safetensors

from toolformer_jax.checkpoints.tensors import Header, Tensors
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import read_json

SAFETENSORS, SAFETENSORS_INDEX = 'model.safetensors', 'model.safetensors.index.json'
_BIN, _BIN_INDEX = 'pytorch_model.bin', 'pytorch_model.bin.index.json'
_PREFIX = 'transformer.'
_DTYPES = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}


def has_weights(path: pathlib.Path) -> bool:
  """Tells whether the directory `path` has weights in files of a kind that can be read."""
  return any((path / name).is_file()
             for name in (SAFETENSORS, SAFETENSORS_INDEX, _BIN, _BIN_INDEX))


def open_weights(path: pathlib.Path) -> Tensors:
  """Opens the weights of a Hugging Face directory; safetensors where it has both kinds.

  Raises:
    UserError: a file is missing or broken, or torch is not installed and is needed.
  """
  if (path / SAFETENSORS).is_file() or (path / SAFETENSORS_INDEX).is_file():
    return SafetensorsFiles(path)
  return TorchFiles(path)


def _files(path: pathlib.Path, single: str, index: str) -> list[pathlib.Path]:
  """Returns the files that the tensors lie in.

  Raises:
    UserError: the index is broken, or names a file that is not in `path`.
  """
  if (path / single).is_file():
    return [path / single]
  where = read_json(path / index).get('weight_map')
  if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
    raise UserError(f'{path / index} has no weight_map of names')
  names = sorted(set(where.values()))
  for name in names:
    if pathlib.PurePath(name).name != name:
      raise UserError(f'{path / index} names a file elsewhere: {name!r}')
    if not (path / name).is_file():
      raise UserError(f'{path / index} names {name}, which is not there; fetch it')
  return [path / name for name in names]


def _named_as_today(names: Sequence[str]) -> dict[str, str]:
  """Returns, by the names of today, those of a file: old ones of GPT-2 lack their prefix."""
  # Llama's names have another prefix, and begin with it.
  lacks = not any(name.startswith((_PREFIX, 'model.')) for name in names)
  return {_PREFIX + name if lacks and not name.startswith('lm_head.') else name: name
          for name in names}


class SafetensorsFiles:
  """The tensors of safetensors files."""

  def __init__(self, path: pathlib.Path):
    """Opens the files of the directory `path`, which are memory-mapped."""
    self.where, self._in = str(path), {}
    for file in _files(path, SAFETENSORS, SAFETENSORS_INDEX):
      try:
        opened = safetensors.safe_open(file, framework='numpy')
        self._in |= dict.fromkeys(opened.keys(), opened)
      except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f'{file} is no whole safetensors file: {error}') from error
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
  """The tensors of PyTorch's files; needs the extra `torch`."""

  def __init__(self, path: pathlib.Path):
    """Opens the files of the directory `path`, which are memory-mapped where their format allows.
    """
    self.where, self._tensors = str(path), {}
    for file in _files(path, _BIN, _BIN_INDEX):
      self._tensors |= _load_tensors(file)
    self._names = _named_as_today(self._tensors)
    self.headers = {name: self._header(theirs) for name, theirs in self._names.items()}

  def _header(self, name: str) -> Header:
    tensor = self._tensors[name]
    return Header(tuple(tensor.shape), str(tensor.dtype).removeprefix('torch.'))

  def read(self, name: str) -> np.ndarray:
    """Returns the tensor called `name`, in float32: numpy alone knows no bfloat16."""
    return self._tensors[self._names[name]].detach().float().numpy()


def _load_tensors(file: pathlib.Path) -> dict[str, Any]:
  """Returns the tensors in a .bin file; nothing else that it may hold is made."""
  try:
    import torch
  except ImportError as error:
    raise UserError(f'{file} is a file of PyTorch, which is not installed; '
                    "pip install 'toolformer_jax[torch]', or convert it to safetensors") from error
  try:
    tensors = torch.load(file, map_location='cpu', weights_only=True, mmap=_is_zip(file))
  except Exception as error:  # of pickles, of zip files, of what is not allowed
    raise UserError(f'{file} is broken, or holds something else than weights '
                    f'({type(error).__name__}); no code in it was run') from error
  if not isinstance(tensors, dict) or not all(
      isinstance(name, str) and isinstance(tensor, torch.Tensor)
      for name, tensor in tensors.items()):
    raise UserError(f'{file} holds something else than tensors by name')
  return tensors


def _is_zip(file: pathlib.Path) -> bool:
  """Tells whether a file has PyTorch's format since 1.6; older ones cannot be memory-mapped."""
  with open(file, 'rb') as opened:
    return opened.read(2) == b'PK'
