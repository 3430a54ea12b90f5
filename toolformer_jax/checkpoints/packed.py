"""Weights of 4 or 8 bits in a Hugging Face directory: packed integers, and the scales of groups.

A matrix `NAME`, [outputs, inputs] (in GPT-2 [inputs, outputs]), is stored as two tensors:

    NAME.codes    int8; for 4 bits uint8, two neighbours of the last axis in a byte, each plus 8,
                  the first one in the lower half
    NAME.scales   a scale for each group: float32 for 8 bits, float16 for 4; along the axis of the
                  inputs it has fewer elements than the matrix

A weight is its code times its scale. config.json says so in `quantization_config`. The loader of
this package computes the weights; other programs get them from `toolformer export`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from toolformer_jax.checkpoints.tensors import Header, Tensors
from toolformer_jax.errors import UserError
from toolformer_jax.models.int4 import GROUP, pack_rows
from toolformer_jax.models.int8 import LOWEST_OF_4_BITS

QUANTIZATION_CONFIG = 'quantization_config'
_METHOD = 'toolformer_jax'
_CODES, _SCALES = '.codes', '.scales'


def quantization_config(bits: Sequence[int], group_size: int) -> dict[str, Any]:
  """Returns the field `quantization_config` of config.json.

  Args:
    bits: 4 or 8 for each layer. The field has a list only if not all are the same.
    group_size: number of inputs that share a scale in 4 bits.
  """
  alike = len(set(bits)) == 1
  return {'quant_method': _METHOD, 'bits': bits[0] if alike else list(bits),
          'group_size': group_size}


def pack(name: str, codes: np.ndarray, scales: np.ndarray, bits: int) -> dict[str, np.ndarray]:
  """Returns the tensors that hold a matrix.

  Args:
    name: of the matrix.
    codes: int8, a matrix whose last axis is even.
    scales: a scale for each group, with a smaller axis of inputs.
    bits: 4 or 8.
  """
  if bits == 4:
    codes = np.ascontiguousarray(pack_rows(codes.T).T)
  return {name + _CODES: codes, name + _SCALES: scales}


def abstract_pack(name: str, shape: Sequence[int], inputs_first: bool, bits: int, group_size: int
                  ) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shapes and dtypes of the tensors that `pack` returns.

  Args:
    name, shape: of the matrix.
    inputs_first: whether it is [inputs, outputs].
    bits: 4 or 8.
    group_size: number of inputs that share a scale.
  """
  rows, columns = shape
  groups = (rows // group_size, columns) if inputs_first else (rows, columns // group_size)
  codes, scales = {4: ((rows, columns // 2), np.float16), 8: ((rows, columns), np.float32)}[bits]
  return {name + _CODES: jax.ShapeDtypeStruct(codes, np.uint8 if bits == 4 else np.int8),
          name + _SCALES: jax.ShapeDtypeStruct(groups, scales)}


def check_is_not_packed(tensors: Tensors) -> None:
  """Raises UserError if weights are packed, in a directory whose config.json does not say so."""
  if any(name.endswith(_CODES) for name in tensors.headers):
    raise UserError(f'{tensors.where}: the weights are packed integers, as `toolformer compress` '
                    f'writes them, but config.json lacks {QUANTIZATION_CONFIG}, which says so; '
                    'copy the config.json that was written with them')


class PackedTensors:
  """The tensors of a directory, some of which are packed, as matrices in float32."""

  def __init__(self, tensors: Tensors, settings: Any):
    """Wraps the tensors of a directory.

    Args:
      tensors: as they are stored.
      settings: the field `quantization_config` of config.json.

    Raises:
      UserError: they are of another kind, or some are missing or do not fit.
    """
    self.where = tensors.where
    method = settings.get('quant_method') if isinstance(settings, Mapping) else settings
    if method != _METHOD:
      raise UserError(f'{self.where}: quantization_config is of the method {method!r}, which is '
                      'not supported; use weights that are not quantized, or a GGUF file')
    self._tensors = tensors
    self.headers = {name: header for name, header in tensors.headers.items()
                    if not name.endswith((_CODES, _SCALES))}
    for name, header in tensors.headers.items():
      if name.endswith(_CODES):
        self.headers[name.removesuffix(_CODES)] = self._header(name.removesuffix(_CODES), header)

  def _header(self, name: str, codes: Header) -> Header:
    """Returns the header of a packed matrix, whose codes and scales must fit."""
    scales = self._tensors.headers.get(name + _SCALES)
    if scales is None or len(codes.shape) != 2 or codes.dtype not in ('I8', 'U8'):
      raise UserError(f'{self.where}: {name} has codes without scales, or of another type')
    rows, columns = codes.shape
    shape = (rows, columns * 2 if codes.dtype == 'U8' else columns)
    fits = len(scales.shape) == 2 and all(
        groups and size % groups == 0 for size, groups in zip(shape, scales.shape, strict=True))
    # Groups lie along the inputs; each output has scales of its own.
    if not fits or all(size != groups for size, groups in zip(shape, scales.shape, strict=True)):
      raise UserError(f'{self.where}: the scales of {name}, {tuple(scales.shape)}, do not fit a '
                      f'matrix {shape}')
    return Header(shape, 'float32')

  def read(self, name: str) -> np.ndarray:
    """Returns the tensor called `name`; a packed one in float32."""
    if name + _CODES not in self._tensors.headers:
      return self._tensors.read(name)
    codes, scales = self._expanded(name)
    return codes * scales.astype(np.float32)

  def read_codes(self, name: str, bits: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the codes of a matrix, int8, and the scale of each; None if it is not packed.

    Args:
      name: of the matrix.
      bits: with 8, None is also returned of a matrix that has not 8 bits and one scale for each
        output.

    Raises:
      UserError: 4 bits are asked for, and the matrix has 8, or smaller groups than `int4.GROUP`.
    """
    codes, scales = (self._tensors.headers.get(name + part) for part in (_CODES, _SCALES))
    if codes is None or scales is None:
      return None
    if bits == 8:
      return self._expanded(name) if codes.dtype == 'I8' and 1 in scales.shape else None
    group_size = math.prod(self.headers[name].shape) // math.prod(scales.shape)
    if codes.dtype != 'U8' or group_size % GROUP:
      raise UserError(f'{self.where}: {name} is not stored in 4 bits with a scale for {GROUP} '
                      'inputs or a multiple; load the model with another ModelConfig.dtype than '
                      'int4')
    return self._expanded(name)

  def _expanded(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the codes of a packed matrix, int8, and the scale of each."""
    codes = self._tensors.read(name + _CODES)
    if codes.dtype == np.uint8:
      halves = np.stack([codes & 15, codes >> 4], -1).astype(np.int8) + np.int8(LOWEST_OF_4_BITS)
      codes = halves.reshape(len(codes), -1)
    scales = self._tensors.read(name + _SCALES)
    for axis in (0, 1):
      scales = scales.repeat(codes.shape[axis] // scales.shape[axis], axis)
    return codes, scales
