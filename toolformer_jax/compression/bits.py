"""Rounds the weights of a model to few bits, and writes them as packed integers."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from toolformer_jax.checkpoints import huggingface
from toolformer_jax.checkpoints.families.registry import family_of
from toolformer_jax.checkpoints.families.weights import Weight, group_by_tensor
from toolformer_jax.checkpoints.gguf_names import is_transposed
from toolformer_jax.checkpoints.packed import abstract_pack, pack, quantization_config
from toolformer_jax.compression.block_params import kernels, with_blocks
from toolformer_jax.compression.calibration import LayerStatistics, walk
from toolformer_jax.compression.gptq import gptq
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.int8 import round_to_nearest, to_codes
from toolformer_jax.models.kernels import Params, with_kernels
from toolformer_jax.models.language_model import LanguageModel

_POSITIONS = ('position_embedding',)


class Rounding(NamedTuple):
  """How the weights of a model are rounded.

  Attributes:
    bits: 4 or 8 for each layer, of the matrices of its block; other matrices have 8.
    group_size: number of inputs that share a scale in 4 bits.
    scales: for each layer, the scales [G, O] of its matrix products by their paths; empty if the
      weights are not yet rounded.
  """

  bits: tuple[int, ...]
  group_size: int
  scales: list[dict[str, np.ndarray]]

  def of_matrix(self, layer: int | None, inputs: int) -> tuple[int, int]:
    """Returns the bits of a matrix, and how many inputs share a scale.

    In 8 bits all inputs of an output do.

    Args:
      layer: the number of its layer; None for a matrix that is in no block.
      inputs: its number of inputs.
    """
    if layer is None or self.bits[layer] == 8:
      return 8, inputs
    return 4, self.group_size


def round_by_gptq(model: LanguageModel, rows_RT: np.ndarray, bits: tuple[int, ...],
                  group_size: int) -> tuple[LanguageModel, Rounding]:
  """Returns the model with rounded weights in its blocks, and their scales (GPTQ).

  Each block sees what the rounded blocks before it make of the calibration rows.
  """
  rounding, layers = Rounding(bits, group_size, []), []
  def visit(layer: int, block: Params, statistics: LayerStatistics) -> Params:
    found = {path: gptq(kernel_IO, statistics.inputs[path],
                        *rounding.of_matrix(layer, len(kernel_IO)))
             for path, kernel_IO in kernels(block).items()}
    rounding.scales.append({path: scales_GO for path, (_, scales_GO) in found.items()})
    layers.append(with_kernels(block, {path: kernel_IO for path, (kernel_IO, _) in found.items()}))
    return layers[-1]
  walk(model, rows_RT, visit, products=True)
  return with_blocks(model, layers), rounding


def save_rounded(path: epath.Path, model: LanguageModel, rounding: Rounding, *,
                 zstd: bool = False) -> None:
  """Writes a Hugging Face directory whose matrices are packed integers.

  Args:
    path: the directory.
    model: the model.
    rounding: how it is rounded. Weights without a scale in it are rounded to the nearest code.
    zstd: compress the weight files, see `checkpoints.zstd_files`.

  Raises:
    UserError: the directory cannot be written.
  """
  huggingface.save_directory(
      path, model, tensors=_packed(model, rounding),
      quantization=quantization_config(rounding.bits, rounding.group_size), zstd=zstd)


def packed_bytes(config: DecoderConfig, rounding: Rounding) -> int:
  """Returns the size of the weight files that `save_rounded` writes, in bytes."""
  tensors: dict[str, jax.ShapeDtypeStruct] = {}
  for name, shape, layout in _layouts(config, rounding):
    tensors |= (abstract_pack(name, shape, layout.inputs_first, layout.bits, layout.group_size)
                if layout else {name: jax.ShapeDtypeStruct(shape, np.float32)})
  return huggingface.weight_bytes(tensors)


class _Layout(NamedTuple):
  """How a matrix is packed.

  Attributes:
    weights: the parameters that it holds.
    layer: the number of its layer; None if it is in no block.
    inputs_first: whether it is [inputs, outputs], as in GPT-2.
    bits, group_size: from `Rounding.of_matrix`.
  """

  weights: list[Weight]
  layer: int | None
  inputs_first: bool
  bits: int
  group_size: int


def _layouts(config: DecoderConfig, rounding: Rounding
             ) -> Iterator[tuple[str, tuple[int, ...], _Layout | None]]:
  """Yields names and shapes of all tensors of a checkpoint; of matrices, how they are packed."""
  family = family_of(config)
  for group in group_by_tensor(family.weights(config)):
    for layer, name in enumerate(group[0].tensor_names(config.layers)):
      shape = group[0].shape
      if len(shape) == 1 or group[0].path == _POSITIONS:
        yield name, shape, None
        continue
      inputs_first = is_transposed(family.model_type, name)
      of_layer = layer if group[0].of_block else None
      yield name, shape, _Layout(group, of_layer, inputs_first, *rounding.of_matrix(
          of_layer, shape[0 if inputs_first else 1]))


def _packed(model: LanguageModel, rounding: Rounding) -> Iterator[tuple[str, np.ndarray]]:
  """Yields names and values of all tensors, matrices as codes and scales."""
  tensors = huggingface.exported_tensors(model, model.config)
  for (name, tensor), (_, _, layout) in zip(tensors, _layouts(model.config, rounding), strict=True):
    if layout is None:
      yield name, tensor
      continue
    matrix_OI = tensor.T if layout.inputs_first else tensor
    if layout.layer is not None and rounding.scales:
      scales_OG = _stored(layout.weights, rounding.scales[layout.layer], model.config,
                          layout.inputs_first)
      codes_OI = to_codes(matrix_OI, scales_OG.repeat(layout.group_size, 1), layout.bits)
    else:
      codes_OI, scales_OG = round_to_nearest(matrix_OI, layout.bits, layout.group_size)
    parts = codes_OI, scales_OG
    codes, scales = (part.T for part in parts) if layout.inputs_first else parts
    yield from pack(name, codes, scales, layout.bits).items()


def _stored(group: list[Weight], scales: dict[str, np.ndarray], config: DecoderConfig,
            inputs_first: bool) -> np.ndarray:
  """Returns the scales [O, G] of the tensor of a checkpoint that holds some of our kernels."""
  expanded, sizes = [], []
  for weight in group:
    scales_GO = scales['/'.join(weight.path[1:-1])]
    shape = [weight.split[i] for i in weight.order]
    if weight.part:
      kept = [size for axis, size in enumerate(weight.split) if axis != weight.part[0]]
      shape = [kept[i] for i in weight.order]
    inputs = int(np.prod(shape)) // scales_GO.shape[1]
    sizes.append(inputs // len(scales_GO))
    expanded.append(scales_GO.repeat(sizes[-1], 0).reshape(shape))
  tensor = group[0].to_tensor(expanded)
  return (tensor.T if inputs_first else tensor)[:, ::sizes[0]]
