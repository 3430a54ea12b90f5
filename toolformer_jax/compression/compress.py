"""Compresses a model step by step, and writes it."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from etils import epath

from toolformer_jax.checkpoints import huggingface
from toolformer_jax.compression import bits as few_bits
from toolformer_jax.compression import layers as whole_layers
from toolformer_jax.compression import mixed_precision, sparsity, structure
from toolformer_jax.compression.calibration import calibration_rows
from toolformer_jax.compression.checks import check_compression
from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.output_dir import check_is_new
from toolformer_jax.runtime.paths import files_under
from toolformer_jax.runtime.run_dir import write_json

REPORT = 'compression.json'


@dataclass(frozen=True)
class CompressionResult:
  """A model that was compressed.

  Attributes:
    path: the folder of the model, a Hugging Face directory.
    kept_layers: numbers that its layers had before.
    block_influences: of all layers, if layers were chosen by them.
    parameters: number of parameters before and after; zeros count.
    nonzero: number of parameters that are not zero after, before they are rounded to few bits.
    bits: of the weights of each layer, 4 or 8; empty if they have all.
    rounding_costs: how much the loss of the calibration texts rises if a layer alone has 4 bits;
      for each layer, if bits were chosen by it.
    weight_bytes: size of the files with the weights.
  """

  path: epath.Path
  kept_layers: tuple[int, ...]
  block_influences: tuple[float, ...]
  parameters: tuple[int, int]
  nonzero: int
  bits: tuple[int, ...]
  rounding_costs: tuple[float, ...]
  weight_bytes: int

  def to_record(self) -> dict[str, Any]:
    """Returns the fields as JSON has them, without the path."""
    record = dataclasses.asdict(self)
    del record['path']
    return record


def compress_model(model: LanguageModel, texts: Iterable[str] | None, *, output_dir: epath.Path,
                   config: CompressionConfig = CompressionConfig()) -> CompressionResult:
  """Writes a compressed model, and `compression.json`, which says what was removed.

  Args:
    model: the model; its adapter is merged into the weights.
    texts: calibration texts; None if the configuration needs none.
    output_dir: the folder of the model; it must be new or empty.
    config: what is removed.

  Raises:
    UserError: the folder is not empty, the adapter cannot be merged, texts are missing or too
      short, or the model cannot be compressed so, see `check_compression`.
  """
  check_compression(config, model.config)
  check_is_new(output_dir)
  if isinstance(texts, str):
    raise UserError('the calibration texts must be several strings, not one; of a file, give the '
                    'texts in it')
  model.check_is_float('compressed')
  model = merge_adapter(model)
  if config.needs_texts and texts is None:
    raise UserError('these settings of CompressionConfig need calibration texts: give a corpus')
  rows_RT = None
  if config.needs_texts and texts is not None:
    rows_RT = calibration_rows(texts, model.tokenizer, config.calibration_rows,
                               config.calibration_tokens)
  before = _parameters(model)
  model, kept, influences = _fewer_layers(model, rows_RT, config)
  model = _fewer_units(model, rows_RT, config)
  model = _fewer_weights(model, rows_RT, config)
  bits, costs = _save(output_dir, model, rows_RT, config)
  weight_bytes = sum(file.stat().length for file in files_under(output_dir)
                     if file.suffix == '.safetensors')
  result = CompressionResult(output_dir, kept, influences, (before, _parameters(model)),
                             _nonzero(model), bits, costs, weight_bytes)
  write_json(output_dir / REPORT, {'settings': dataclasses.asdict(config), **result.to_record()})
  return result


def _fewer_layers(model: LanguageModel, rows_RT: np.ndarray | None, config: CompressionConfig
                  ) -> tuple[LanguageModel, tuple[int, ...], tuple[float, ...]]:
  """Returns a model of fewer layers, their numbers, and the influences that chose them."""
  kept, influences = config.keep_layers, []
  if config.layers:
    assert rows_RT is not None
    influences = whole_layers.block_influences(model, rows_RT)
    kept = whole_layers.most_influential(influences, config.layers)
  if not kept:
    return model, tuple(range(model.config.layers)), ()
  return whole_layers.keep_layers(model, kept), kept, tuple(influences)


def _fewer_units(model: LanguageModel, rows_RT: np.ndarray | None, config: CompressionConfig
                 ) -> LanguageModel:
  """Returns a model of fewer heads and channels."""
  if not (config.kv_heads or config.mlp_dim):
    return model
  scores = structure.unit_scores(model, config.unit_scores, rows_RT)
  return structure.keep_units(model, *scores, config.kv_heads, config.mlp_dim)


def _fewer_weights(model: LanguageModel, rows_RT: np.ndarray | None, config: CompressionConfig
                   ) -> LanguageModel:
  """Returns a model some of whose weights are zero."""
  if not config.sparsity:
    return model
  if config.weight_scores == 'magnitude':
    return sparsity.prune_by_magnitude(model, config.sparsity, config.pattern)
  assert rows_RT is not None
  prune = {'wanda': sparsity.prune_by_wanda, 'gradient': sparsity.prune_by_gradient}
  return prune[config.weight_scores](model, rows_RT, config.sparsity, config.pattern)


def _save(path: epath.Path, model: LanguageModel, rows_RT: np.ndarray | None,
          config: CompressionConfig) -> tuple[tuple[int, ...], tuple[float, ...]]:
  """Writes a model, in few bits if the configuration says so; returns these, and what they cost."""
  if config.bits == 'all':
    huggingface.save_directory(path, model)
    return (), ()
  bits, costs = _bits_of_layers(model, rows_RT, config)
  rounding = few_bits.Rounding(bits, config.group_size, [])
  if config.rounding == 'gptq':
    assert rows_RT is not None
    model, rounding = few_bits.round_by_gptq(model, rows_RT, bits, config.group_size)
  few_bits.save_rounded(path, model, rounding)
  return bits, costs


def _bits_of_layers(model: LanguageModel, rows_RT: np.ndarray | None, config: CompressionConfig
                    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
  """Returns 4 or 8 for each layer, and the costs that they were chosen by."""
  c, budget = model.config, config.weight_bytes
  if config.bits != 'mixed':
    return ({'int8': 8, 'int4': 4}[config.bits],) * c.layers, ()
  if mixed_precision.fits(c, budget):
    return (8,) * c.layers, ()
  assert rows_RT is not None
  costs = mixed_precision.rounding_costs(model, rows_RT, config.group_size)
  return mixed_precision.choose_bits(costs, c, config.group_size, budget), tuple(costs)


def _parameters(model: LanguageModel) -> int:
  return sum(x.size for x in jax.tree.leaves(model.variables))


def _nonzero(model: LanguageModel) -> int:
  return sum(int(np.count_nonzero(np.asarray(x))) for x in jax.tree.leaves(model.variables))
