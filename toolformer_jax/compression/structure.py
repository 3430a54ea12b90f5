"""Removes attention heads and channels of the MLPs: the same number in every layer.

Dimensions: L layers, D embedding, N heads, K key/value heads, H head, F channels.
"""

from typing import Any

import jax
import numpy as np

from toolformer_jax.compression.calibration import walk
from toolformer_jax.compression.calibration_loss import sum_of_changes
from toolformer_jax.compression.config import UnitScores
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import BLOCKS
from toolformer_jax.models.kernels import Params
from toolformer_jax.models.language_model import LanguageModel


def unit_scores(model: LanguageModel, scores: UnitScores, rows_RT: np.ndarray | None
                ) -> tuple[np.ndarray, np.ndarray]:
  """Returns how much each key/value head and each channel matters, [L, K] and [L, F].

  Args:
    model: the model, without adapters.
    scores: see `CompressionConfig.unit_scores`.
    rows_RT: calibration rows; None for 'magnitude'.
  """
  blocks = jax.tree.map(np.asarray, model.variables['params'][BLOCKS])
  if scores == 'magnitude':
    return _magnitudes(model, blocks)
  assert rows_RT is not None
  if scores == 'taylor':
    return _taylor(model, rows_RT)
  out_LNHD, down_LFD = blocks['attention']['out']['kernel'], blocks['mlp']['down']['kernel']
  found: list[tuple[np.ndarray, np.ndarray]] = []
  walk(model, rows_RT, lambda layer, block, statistics: found.append(
      (statistics.inputs['attention/out'], statistics.inputs['mlp/down'])))
  squares_LNH, squares_LF = (np.stack(one) for one in zip(*found, strict=True))
  heads_LNH = squares_LNH.reshape(out_LNHD.shape[:3]) * (out_LNHD**2).sum(-1)
  return _by_kv_head(model.config, heads_LNH), squares_LF * (down_LFD**2).sum(-1)


def _by_kv_head(config: DecoderConfig, scores_LNH: Any) -> Any:
  """Returns the sums over the query heads of each key/value head, [L, K]."""
  return scores_LNH.reshape(len(scores_LNH), config.kv_heads, -1).sum(-1)


def _magnitudes(model: LanguageModel, blocks: Params) -> tuple[np.ndarray, np.ndarray]:
  """Returns the sums of the squares of all weights of a head or channel."""
  attention, mlp = blocks['attention'], blocks['mlp']
  heads_LK = _by_kv_head(model.config, (attention['out']['kernel']**2).sum(-1))
  for name in ('query', 'key', 'value'):
    heads_LK = heads_LK + _by_kv_head(model.config, (attention[name]['kernel']**2).sum(1))
  ups = [mlp[name]['kernel'] for name in ('up', 'gate') if name in mlp]
  return heads_LK, sum(((up_LDF**2).sum(1) for up_LDF in ups), (mlp['down']['kernel']**2).sum(-1))


def _taylor(model: LanguageModel, rows_RT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the first-order change of a row's loss without a head or channel, summed over rows.

  What a head or channel adds to a hidden state is its activation times its row of a kernel, so that
  the sum of that row times its gradient is the sum over tokens of activation times its gradient.
  """
  scores = sum_of_changes(model, rows_RT, ('attention/out', 'mlp/down'), _size_by_unit)
  return scores['attention/out'], scores['mlp/down']


def _size_by_unit(config: DecoderConfig, path: str, changes: jax.Array) -> jax.Array:
  by_unit = changes.sum(-1)
  return abs(_by_kv_head(config, by_unit) if path == 'attention/out' else by_unit)


def keep_units(model: LanguageModel, scores_LK: np.ndarray, scores_LF: np.ndarray, kv_heads: int,
               mlp_dim: int) -> LanguageModel:
  """Returns the model with only the heads and channels of the highest scores in each layer.

  Args:
    model: the model, without adapters.
    scores_LK, scores_LF: from `unit_scores`.
    kv_heads: number of key/value heads that are kept; query heads go with theirs. 0 keeps all.
    mlp_dim: number of channels that are kept. 0 keeps all.
  """
  c = model.config
  params = jax.tree.map(np.asarray, model.variables['params'])
  blocks = params[BLOCKS]
  if kv_heads:
    group = c.heads // c.kv_heads
    kv_LK = _highest(scores_LK, kv_heads)
    heads_LN = (kv_LK[..., None] * group + np.arange(group)).reshape(len(kv_LK), -1)
    chosen = {'query': heads_LN, 'key': kv_LK, 'value': kv_LK}
    blocks = blocks | {'attention': _keep(blocks['attention'], chosen, axis=2) | {
        'out': _keep_inputs(blocks['attention']['out'], heads_LN)}}
  if mlp_dim:
    channels_LF = _highest(scores_LF, mlp_dim)
    ups = {name: channels_LF for name in ('up', 'gate') if name in blocks['mlp']}
    blocks = blocks | {'mlp': _keep(blocks['mlp'], ups, axis=2) | {
        'down': _keep_inputs(blocks['mlp']['down'], channels_LF)}}
  kv = kv_heads or c.kv_heads
  config = c.replace(kv_heads=kv, heads=kv * (c.heads // c.kv_heads), mlp_dim=mlp_dim or c.mlp_dim)
  return LanguageModel.from_variables(
      config, {'params': params | {BLOCKS: blocks}}, model.tokenizer, model.mesh)


def _highest(scores_LX: np.ndarray, count: int) -> np.ndarray:
  """Returns in each layer the indices of the highest scores, in ascending order, [L, count]."""
  return np.sort(np.argsort(-scores_LX, 1, kind='stable')[:, :count], 1)


def _keep(part: Params, chosen: dict[str, np.ndarray], axis: int) -> Params:
  """Returns `part`, some of whose projections have only chosen outputs [L, X]."""
  changed = {}
  for name, index_LX in chosen.items():
    changed[name] = {'kernel': _take(part[name]['kernel'], index_LX, axis)}
    if 'bias' in part[name]:
      changed[name]['bias'] = _take(part[name]['bias'], index_LX, 1)
  return part | changed


def _keep_inputs(projection: Params, index_LX: np.ndarray) -> Params:
  """Returns a projection with only chosen inputs."""
  return projection | {'kernel': _take(projection['kernel'], index_LX, 1)}


def _take(x: np.ndarray, index_LX: np.ndarray, axis: int) -> np.ndarray:
  """Returns the chosen slices of each layer along an axis."""
  return np.stack([layer.take(index_X, axis - 1)
                   for layer, index_X in zip(x, index_LX, strict=True)])
