"""Reads tensors from a file in PyTorch's older format, without torch and without unpickling it.

The format: five pickles (a magic number, a version, facts of the machine, the object, the keys of
its storages), and then for each key the number of elements, as int64, and the elements. pickletools
splits a pickle into its instructions without running them; those that a dictionary of tensors
needs are followed here, and all others are refused.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_MAGIC = 0x1950a86a20f9469cfc6c
_DTYPES: dict[str, np.dtype] = {
  'torch FloatStorage': np.dtype('<f4'), 'torch LongStorage': np.dtype('<i8')}
_TENSOR, _DICT = 'torch._utils _rebuild_tensor_v2', 'collections OrderedDict'
_CONSTANTS: dict[str, Callable[[], Any]] = {
  'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple, 'NONE': lambda: None,
  'NEWTRUE': lambda: True, 'NEWFALSE': lambda: False}
_LITERALS = {'LONG1', 'BININT', 'BININT1', 'BININT2', 'BINUNICODE'}
_MARK = object()


@dataclass(frozen=True)
class _Class:
  """The name of a class or a function, which is not imported."""

  name: str


@dataclass(frozen=True)
class _Storage:
  key: str
  dtype: np.dtype
  size: int


@dataclass(frozen=True)
class _Tensor:
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read_torch_file(data: bytes) -> dict[str, np.ndarray]:
  """Returns the arrays by name of a dictionary of tensors that torch saved.

  Args:
    data: the content of the file.

  Raises:
    ValueError: it is not in that format, or holds something besides tensors.
  """
  file = io.BytesIO(data)
  try:
    if _read_object(file) != _MAGIC:
      raise ValueError('it does not begin as torch begins a file')
    _, facts, tensors, keys = (_read_object(file) for _ in range(4))
    if not facts['little_endian'] or not all(isinstance(one, _Tensor) for one in tensors.values()):
      raise ValueError('it holds something besides tensors')
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    elements = {key: _elements(file, storages[key]) for key in keys}
    return {name: _array(tensor, elements[tensor.storage.key])
            for name, tensor in tensors.items()}
  except (LookupError, TypeError, AttributeError) as error:  # a stack or dictionary lacks something
    raise ValueError(f'it is no file of torch ({type(error).__name__}: {error})') from error


def _read_object(file: io.BytesIO) -> Any:
  """Returns the object that the next pickle describes."""
  machine = _Machine()
  for instruction, argument, _ in pickletools.genops(file):
    machine.step(instruction.name, argument)
  value, = machine.stack
  return value


class _Machine:
  """The stack and the memory of a pickle; it creates lists, dictionaries and the classes above."""

  def __init__(self) -> None:
    self.stack: list[Any] = []
    self._memory: dict[int, Any] = {}

  def step(self, name: str, argument: Any) -> None:
    """Follows one instruction. Raises ValueError if it is not among the known ones."""
    if name in _CONSTANTS:
      self.stack.append(_CONSTANTS[name]())
    elif name in _LITERALS:
      self.stack.append(argument)
    elif name == 'GLOBAL':
      self.stack.append(_Class(argument))
    elif name == 'MARK':
      self.stack.append(_MARK)
    elif name in ('BINPUT', 'LONG_BINPUT'):
      self._memory[argument] = self.stack[-1]
    elif name in ('BINGET', 'LONG_BINGET'):
      self.stack.append(self._memory[argument])
    elif name not in ('PROTO', 'STOP'):
      self._combine(name)

  def _combine(self, name: str) -> None:
    """Follows an instruction that takes values from the stack."""
    if name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
      count = int(name[-1])
      self.stack[-count:] = [tuple(self.stack[-count:])]
    elif name == 'TUPLE':
      self.stack.append(tuple(self._after_mark()))
    elif name == 'APPENDS':
      values = self._after_mark()
      self.stack[-1].extend(values)
    elif name == 'SETITEM':
      value, key = self.stack.pop(), self.stack.pop()
      self.stack[-1][key] = value
    elif name == 'SETITEMS':
      values = self._after_mark()
      self.stack[-1].update(zip(values[::2], values[1::2], strict=True))
    elif name == 'BINPERSID':
      self.stack.append(_storage(*self.stack.pop()))
    elif name == 'REDUCE':
      arguments, function = self.stack.pop(), self.stack.pop()
      self.stack.append(_made(function, arguments))
    elif name == 'BUILD':  # attributes of the dictionary, which are no tensors
      self.stack.pop()
    else:
      raise ValueError(f'it has an instruction {name}, which tensors do not need')

  def _after_mark(self) -> list[Any]:
    """Removes the values after the last mark, and the mark, and returns them."""
    at = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
    values = self.stack[at + 1:]
    del self.stack[at:]
    return values


def _storage(tag: str, kind: _Class, key: str, _: str, size: int, *__: Any) -> _Storage:
  if tag != 'storage':
    raise ValueError(f'it refers to a {tag}')
  return _Storage(key, _DTYPES[kind.name], size)


def _made(function: Any, arguments: tuple[Any, ...]) -> Any:
  """Returns what a call of one of the two known functions makes."""
  if function == _Class(_DICT) and not arguments:
    return {}
  if function == _Class(_TENSOR):
    return _Tensor(*arguments[:4])
  raise ValueError(f'it calls {function}')


def _elements(file: io.BytesIO, storage: _Storage) -> np.ndarray:
  """Returns the elements of the storage that comes next."""
  size = int.from_bytes(file.read(8), 'little')
  data = file.read(size * storage.dtype.itemsize)
  if size != storage.size or len(data) != size * storage.dtype.itemsize:
    raise ValueError(f'storage {storage.key} is cut off')
  return np.frombuffer(data, storage.dtype)


def _array(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
  """Returns the elements of a tensor in its shape."""
  last = tensor.offset + sum((size - 1) * stride for size, stride in zip(
      tensor.shape, tensor.strides, strict=True))
  if min((tensor.offset, *tensor.strides, *tensor.shape)) < 0 or last >= len(elements):
    raise ValueError('it has a tensor beyond the end of its storage')
  strides = [stride * elements.itemsize for stride in tensor.strides]
  return np.lib.stride_tricks.as_strided(elements[tensor.offset:], tensor.shape, strides).copy()
