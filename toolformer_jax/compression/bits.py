"""Rounds the weights of a model to few bits, and writes them as packed integers."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from etils import epath

from toolformer_jax.checkpoints import huggingface
from toolformer_jax.checkpoints.families.registry import family_of
from toolformer_jax.checkpoints.families.weights import Weight, group_by_tensor
from toolformer_jax.checkpoints.gguf_names import is_transposed
from toolformer_jax.checkpoints.packed import pack, quantization_config
from toolformer_jax.compression.calibration import (
  LayerStatistics,
  Params,
  kernels,
  walk,
  with_kernels,
)
from toolformer_jax.compression.gptq import gptq
from toolformer_jax.compression.sparsity import with_blocks
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.int8 import group_scales, to_codes
from toolformer_jax.models.language_model import LanguageModel

_POSITIONS = ('position_embedding',)


class Rounding(NamedTuple):
  """How the weights of a model are rounded.

  Attributes:
    bits: 4 or 8, of the matrices of blocks; other matrices have 8.
    group_size: number of inputs that share a scale in 4 bits.
    scales: for each layer, the scales [G, O] of its matrix products by their paths; empty if the
      weights are not yet rounded.
  """

  bits: int
  group_size: int
  scales: list[dict[str, np.ndarray]]

  def of_matrix(self, of_block: bool, inputs: int) -> tuple[int, int]:
    """Returns the bits of a matrix, and how many inputs share a scale.

    In 8 bits all inputs of an output do. Rows that are no whole groups have 8 bits.
    """
    if self.bits == 8 or not of_block or inputs % self.group_size:
      return 8, inputs
    return 4, self.group_size


def round_by_gptq(model: LanguageModel, rows_RT: np.ndarray, bits: int, group_size: int
                  ) -> tuple[LanguageModel, Rounding]:
  """Returns the model with rounded weights in its blocks, and their scales (GPTQ).

  Each block sees what the rounded blocks before it make of the calibration rows.
  """
  rounding, layers = Rounding(bits, group_size, []), []
  def visit(layer: int, block: Params, statistics: LayerStatistics) -> Params:
    found = {path: gptq(kernel_IO, statistics.inputs[path],
                        *rounding.of_matrix(True, len(kernel_IO)))
             for path, kernel_IO in kernels(block).items()}
    rounding.scales.append({path: scales_GO for path, (_, scales_GO) in found.items()})
    layers.append(with_kernels(block, {path: kernel_IO for path, (kernel_IO, _) in found.items()}))
    return layers[-1]
  walk(model, rows_RT, visit, products=True)
  return with_blocks(model, layers), rounding


def save_rounded(path: epath.Path, model: LanguageModel, rounding: Rounding) -> None:
  """Writes a Hugging Face directory whose matrices are packed integers.

  Weights are rounded to the nearest code where `rounding` has no scale for them.

  Raises:
    UserError: the directory cannot be written.
  """
  huggingface.save_directory(
      path, model, tensors=_packed(model, rounding),
      quantization=quantization_config(rounding.bits, rounding.group_size))


def _packed(model: LanguageModel, rounding: Rounding) -> Iterator[tuple[str, np.ndarray]]:
  """Yields names and values of all tensors, matrices as codes and scales."""
  config = model.config
  tensors = huggingface.exported_tensors(model, config)
  for group in group_by_tensor(family_of(config).weights(config)):
    for layer in range(len(group[0].tensor_names(config.layers))):
      name, tensor = next(tensors)
      if tensor.ndim == 1 or group[0].path == _POSITIONS:
        yield name, tensor
        continue
      inputs_first = is_transposed(family_of(config).model_type, name)
      matrix_OI = tensor.T if inputs_first else tensor
      bits, size = rounding.of_matrix(group[0].of_block, matrix_OI.shape[1])
      if group[0].of_block and rounding.scales:
        scales_OG = _stored(group, rounding.scales[layer], config, inputs_first)
      else:
        scales_OG = group_scales(matrix_OI.reshape(len(matrix_OI), -1, size), bits)
      codes_OI = to_codes(matrix_OI, scales_OG.repeat(size, 1), bits)
      parts = codes_OI, scales_OG
      codes, scales = (part.T for part in parts) if inputs_first else parts
      yield from pack(name, codes, scales, bits).items()


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
