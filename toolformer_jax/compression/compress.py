"""Compresses a model step by step, and writes it."""

import dataclasses
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from etils import epath

from toolformer_jax.checkpoints import huggingface, zstd_files
from toolformer_jax.compression import bits as few_bits
from toolformer_jax.compression import layers as whole_layers
from toolformer_jax.compression import mixed_precision, sparsity, structure
from toolformer_jax.compression.calibration import calibration_rows
from toolformer_jax.compression.checks import check_compression
from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.compression.finite import check_weights
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.output_dir import check_is_new
from toolformer_jax.runtime.paths import glob
from toolformer_jax.runtime.run_dir import write_json

REPORT = 'compression.json'
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompressionResult:
  """A model that was compressed.

  Attributes:
    path: the folder of the model, a Hugging Face directory.
    kept_layers: numbers that its layers had before.
    block_influences: of all layers, if layers were chosen by them.
    parameters: number of parameters before and after; zeros count.
    nonzero: number of parameters that are not zero after, before they are rounded to few bits.
    calibration_rows: number of rows that the calibration texts filled; 0 if none were needed.
    bits: of the weights of each layer, 4 or 8; empty if they have all.
    rounding_costs: how much the loss of the calibration texts rises if a layer alone has 4 bits;
      for each layer, if bits were chosen by it.
    weight_bytes: size of the files with the weights, before they are compressed by Zstandard.
    zstd_bytes: their size after that; None if they are not.
  """

  path: epath.Path
  kept_layers: tuple[int, ...]
  block_influences: tuple[float, ...]
  parameters: tuple[int, int]
  nonzero: int
  calibration_rows: int
  bits: tuple[int, ...]
  rounding_costs: tuple[float, ...]
  weight_bytes: int
  zstd_bytes: int | None = None

  def to_record(self) -> dict[str, Any]:
    """Returns the fields as JSON has them, without the path."""
    record = dataclasses.asdict(self)
    del record['path']
    return record


def compress_model(model: LanguageModel, texts: Iterable[str] | None, *, output_dir: epath.Path,
                   config: CompressionConfig = CompressionConfig(), zstd: bool = False
                   ) -> CompressionResult:
  """Writes a compressed model, and `compression.json`, which says what was removed.

  Args:
    model: the model; its adapter is merged into the weights.
    texts: calibration texts; None if the configuration needs none.
    output_dir: the folder of the model; it must be new or empty.
    config: what is removed.
    zstd: compress the weight files without loss; they are decompressed as they are loaded.

  Raises:
    UserError: the folder is not empty, the adapter cannot be merged, texts are missing or too
      short, weights are not finite, the package zstandard is missing, or the model cannot be
      compressed so, see `check_compression`.
  """
  if zstd:
    zstd_files.check_zstandard()
  check_compression(config, model.config)
  check_is_new(output_dir)
  if isinstance(texts, str):
    raise UserError('the calibration texts must be several strings, not one; of a file, give the '
                    'texts in it')
  config.check_has_texts(texts is not None)
  model.check_is_float('compressed')
  source, layers = model.source, model.config.layers
  model = merge_adapter(model)
  check_weights(model, config)
  rows_RT = None
  if config.needs_texts and texts is not None:
    rows_RT = calibration_rows(texts, model.tokenizer, config.calibration_rows,
                               config.calibration_tokens)
  before = _parameters(model)
  model, kept, influences = _fewer_layers(model, rows_RT, config)
  model = _fewer_units(model, rows_RT, config)
  model = _fewer_weights(model, rows_RT, config)
  # The model card says how the original was trained.
  bits, costs = _save(output_dir, dataclasses.replace(model, source=source), rows_RT, config, zstd)
  result = CompressionResult(output_dir, kept, influences, (before, _parameters(model)),
                             _nonzero(model), 0 if rows_RT is None else len(rows_RT), bits, costs,
                             *_weight_bytes(output_dir, zstd))
  write_json(output_dir / REPORT, {'settings': dataclasses.asdict(config), **result.to_record()})
  log.info('%d of %d layers, %s of %s parameters, %.1f%% of them zero, %.1f MB of weights',
           len(kept), layers, f'{result.parameters[1]:,}', f'{before:,}',
           100 * (1 - result.nonzero / result.parameters[1]), result.weight_bytes / 1e6)
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
          config: CompressionConfig, zstd: bool) -> tuple[tuple[int, ...], tuple[float, ...]]:
  """Writes a model, in few bits if the configuration says so; returns these, and what they cost."""
  if config.bits == 'all':
    huggingface.save_directory(path, model, zstd=zstd)
    return (), ()
  bits, costs = _bits_of_layers(model, rows_RT, config)
  rounding = few_bits.Rounding(bits, config.group_size, [])
  if config.rounding == 'gptq':
    assert rows_RT is not None
    rounded, rounding = few_bits.round_by_gptq(model, rows_RT, bits, config.group_size)
    model = dataclasses.replace(rounded, source=model.source)
  few_bits.save_rounded(path, model, rounding, zstd=zstd)
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


def _weight_bytes(path: epath.Path, zstd: bool) -> tuple[int, int | None]:
  """Returns the size of the weight files before Zstandard compresses them, and that after it."""
  files = glob(path, f'*.safetensors{zstd_files.SUFFIX if zstd else ""}')
  plain = sum(map(zstd_files.content_bytes, files))
  if not zstd:
    return plain, None
  compressed = sum(file.stat().length for file in files)
  log.info('zstd: the weights take %.1f in place of %.1f MB', compressed / 1e6, plain / 1e6)
  return plain, compressed


def _parameters(model: LanguageModel) -> int:
  return sum(x.size for x in jax.tree.leaves(model.variables))


def _nonzero(model: LanguageModel) -> int:
  return sum(int(np.count_nonzero(np.asarray(x))) for x in jax.tree.leaves(model.variables))
