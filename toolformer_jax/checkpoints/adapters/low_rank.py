"""LoRA and AdaLoRA in PEFT's format."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toolformer_jax.checkpoints.adapters.modules import (
  Linear,
  Path,
  Weights,
  adapted,
  layer_weights,
  target_modules,
)
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import AdaLoraConfig, LoraConfig, LowRankConfig
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel

Found = Mapping[tuple[Linear, int], Mapping[str, np.ndarray]]  # the tensors of each linear layer
_NO_RANKS = 1e-5  # PEFT divides AdaLoRA's product by the rank and this


class _Product(NamedTuple):
  """What is added to a kernel: up diag(values) down * scale.

  Attributes:
    down: [R, inputs].
    values: [R]; ones for LoRA.
    up: [outputs, R].
    scale: a factor.
  """

  down: np.ndarray
  values: np.ndarray
  up: np.ndarray
  scale: float


def write_lora(model: LanguageModel, adapter: LoraConfig
               ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns adapter_config.json and the tensors of a LoRA adapter.

  Adapters of modules that share a linear layer are joined: the rank of the result is the sum of
  their ranks, and each of them contributes to its own outputs.
  """
  tensors, ranks, alphas = {}, {}, {}
  for linear, layer in adapted(model):
    product = _joined(model, adapter, linear, layer)
    tensors[f'{linear.name.format(layer)}.lora_A.weight'] = product.down
    tensors[f'{linear.name.format(layer)}.lora_B.weight'] = product.up
    ranks[linear.short] = len(product.down)
    alphas[linear.short] = product.scale * len(product.down)
  fields = {
      'peft_type': 'LORA', 'r': adapter.rank, 'lora_alpha': adapter.alpha,
      'lora_dropout': adapter.dropout,
      'target_modules': sorted(ranks),
      'rank_pattern': {name: rank for name, rank in ranks.items() if rank != adapter.rank},
      'alpha_pattern': {name: alpha for name, alpha in alphas.items()
                        if not math.isclose(alpha, adapter.alpha)}}
  return fields, tensors


def write_adalora(model: LanguageModel, adapter: AdaLoraConfig
                  ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns adapter_config.json and the tensors of an AdaLoRA adapter.

  Ranks whose E is zero are left out, unless all of them are: then nothing was trained yet.
  """
  products = {(linear, layer): _joined(model, adapter, linear, layer)
              for linear, layer in adapted(model)}
  room = max(len(product.values) for product in products.values())
  keep = {key: np.pad(product.values != 0, (0, room - len(product.values)))
          for key, product in products.items()}
  untrained = not any(one.any() for one in keep.values())
  tensors, pattern = {}, {}
  for key, product in products.items():
    name, missing = key[0].name.format(key[1]), room - len(product.values)
    kept = np.ones(room, bool) if untrained else keep[key]
    pattern[f'{name}.lora_E'] = kept.tolist()
    tensors[f'{name}.lora_A'] = np.pad(product.down, ((0, missing), (0, 0)))[kept]
    tensors[f'{name}.lora_E'] = np.pad(product.values, (0, missing))[kept][:, None]
    tensors[f'{name}.lora_B'] = np.pad(product.up, ((0, 0), (0, missing)))[:, kept]
  scale = next(iter(products.values())).scale
  fields = {
      'peft_type': 'ADALORA', 'init_r': room, 'target_r': adapter.target_rank,
      'lora_alpha': scale * (room + _NO_RANKS), 'lora_dropout': adapter.dropout,
      'target_modules': sorted({linear.short for linear, _ in products}),
      'rank_pattern': None if untrained else pattern, 'tinit': adapter.tinit,
      'tfinal': adapter.tfinal, 'deltaT': adapter.delta_t, 'beta1': adapter.beta1,
      'beta2': adapter.beta2, 'orth_reg_weight': adapter.orth_reg_weight,
      # PEFT wants a number that leaves room for its schedule; the model does not know its own.
      'total_step': adapter.tinit + adapter.tfinal + 1}
  return fields, tensors


def _joined(model: LanguageModel, adapter: LowRankConfig, linear: Linear, layer: int) -> _Product:
  """Returns what the adapters of all parts of a linear layer add to its kernel."""
  targets, first = linear.targets(model.config), 0
  ranks = {path: adapter.rank_of(path[-1]) for path in targets}
  outputs = [model.config.modules[path[-1]][1] for path in linear.parts]
  scale = max(adapter.scale_of(path[-1]) for path in targets) or 1.0
  column = 0
  downs, values = [], []
  up = np.zeros((sum(outputs), sum(ranks.values())), np.float32)
  for path, size in zip(linear.parts, outputs, strict=True):
    if path in ranks:
      weights, rank = layer_weights(model, path, layer), ranks[path]
      downs.append(weights['a'].reshape(-1, rank).T)
      values.append(weights.get('e', np.ones(rank, np.float32)))
      up[first:first + size, column:column + rank] = (
          weights['b'].reshape(rank, -1).T * (adapter.scale_of(path[-1]) / scale))
      column += rank
    first += size
  return _Product(np.concatenate(downs), np.concatenate(values), up, scale)


def read_lora(config: DecoderConfig, fields: Mapping[str, Any], found: Found
              ) -> tuple[LoraConfig, Weights]:
  """Returns the settings and the weights of a LoRA adapter.

  Layers may have ranks of their own: they are filled up with zeros.
  """
  alpha, rank = float(fields['lora_alpha']), int(fields['r'])
  products = {}
  for (linear, layer), tensors in found.items():
    down, up = tensors['lora_A'], tensors['lora_B']
    own = _by_pattern(fields.get('alpha_pattern'), linear.name.format(layer), alpha)
    root = math.sqrt(len(down)) if fields.get('use_rslora') else len(down)
    products[linear, layer] = _Product(down, np.ones(len(down), np.float32), up, own / root)
  ranks, scales, weights = _split(config, products)
  for arrays in weights.values():
    arrays.pop('e')
  adapter = LoraConfig(
      rank=rank, alpha=alpha, target_modules=target_modules(config, list(weights)),
      dropout=float(fields.get('lora_dropout', 0.0)),
      rank_pattern=tuple((path[-1], one) for path, one in ranks.items() if one != rank),
      alpha_pattern=tuple((path[-1], scales[path] * one) for path, one in ranks.items()
                          if not math.isclose(scales[path] * one, alpha)))
  return adapter, weights


def read_adalora(config: DecoderConfig, fields: Mapping[str, Any], found: Found
                 ) -> tuple[AdaLoraConfig, Weights]:
  """Returns the settings and the weights of an AdaLoRA adapter; ranks that were left out are zeros.
  """
  room, pattern = int(fields['init_r']), fields.get('rank_pattern') or {}
  alpha = float(fields['lora_alpha'])
  scale = (alpha if alpha > 0 else room) / (room + _NO_RANKS)
  products = {}
  for (linear, layer), tensors in found.items():
    name, rank = linear.name.format(layer), len(tensors['lora_E'])
    masks = [mask for key, mask in pattern.items() if key.startswith(f'{name}.lora_E')]
    rows = np.flatnonzero(masks[0]) if masks and rank != room else np.arange(rank)
    if len(rows) != rank or rank > room:
      raise UserError(f'the adapter of {name} has {rank} ranks, which does not fit the '
                      f'rank_pattern and init_r {room}')
    down, values, up = (np.zeros(shape, np.float32) for shape in (
        (room, tensors['lora_A'].shape[1]), room, (len(tensors['lora_B']), room)))
    down[rows], values[rows] = tensors['lora_A'], tensors['lora_E'][:, 0]
    up[:, rows] = tensors['lora_B']
    products[linear, layer] = _Product(down, values, up, scale)
  _, _, weights = _split(config, products)
  adapter = AdaLoraConfig(
      init_rank=room, target_rank=min(room, int(fields['target_r'])), alpha=round(scale * room, 9),
      target_modules=target_modules(config, list(weights)),
      dropout=float(fields.get('lora_dropout', 0.0)), tinit=int(fields['tinit']),
      tfinal=int(fields['tfinal']), delta_t=int(fields['deltaT']), beta1=float(fields['beta1']),
      beta2=float(fields['beta2']), orth_reg_weight=float(fields['orth_reg_weight']))
  return adapter, weights


def _split(config: DecoderConfig, products: Mapping[tuple[Linear, int], _Product]
           ) -> tuple[dict[Path, int], dict[Path, float], Weights]:
  """Returns ranks, scales and weights of our modules, stacked over the layers."""
  ranks: dict[Path, int] = {}
  scales: dict[Path, float] = {}
  weights: Weights = {}
  for linear in dict.fromkeys(linear for linear, _ in products):
    layers = {layer: product for (one, layer), product in products.items() if one == linear}
    rank = max(len(one.values) for one in layers.values())
    scale = max((one.scale for one in layers.values()), key=abs) or 1.0
    first = 0
    for path in linear.parts:
      inputs, outputs = config.modules[path[-1]]
      ranks[path], scales[path] = rank, scale
      weights[path] = _stacked(config.layers, layers, rank, scale, inputs,
                               range(first, first + outputs))
      first += outputs
  return ranks, scales, weights


def _stacked(layers: int, products: Mapping[int, _Product], rank: int, scale: float, inputs: int,
             outputs: range) -> dict[str, np.ndarray]:
  """Returns the weights of one module; layers without adapter have zeros."""
  a = np.zeros((layers, inputs, rank), np.float32)
  b = np.zeros((layers, rank, len(outputs)), np.float32)
  e = np.zeros((layers, rank), np.float32)
  for layer, product in products.items():
    own = len(product.values)
    a[layer, :, :own], e[layer, :own] = product.down.T, product.values
    b[layer, :own] = product.up[outputs.start:outputs.stop].T * (product.scale / scale)
  return {'a': a, 'b': b, 'e': e}


def _by_pattern(pattern: Mapping[str, float] | None, name: str, default: float) -> float:
  """Returns the value of the first name in `pattern` that a module's name ends with.

  In PEFT they are regular expressions. Those of a file are not run: they can take for ever.
  """
  for key, value in (pattern or {}).items():
    key = key.removeprefix('^')
    if not re.fullmatch(r'[\w.]+', key):
      raise UserError(f'alpha_pattern has the regular expression {key!r}; only names are supported')
    if name == key or name.endswith(f'.{key}'):
      return float(value)
  return default


def expected_shapes(config: DecoderConfig, linear: Linear, tensors: Mapping[str, np.ndarray]
                    ) -> dict[str, Sequence[int]]:
  """Returns the shapes that the tensors of a linear layer must have, given the rank of the first.
  """
  inputs = config.modules[linear.parts[0][-1]][0]
  outputs = sum(config.modules[path[-1]][1] for path in linear.parts)
  rank = tensors['lora_A'].shape[0] if tensors['lora_A'].ndim else 0
  shapes: dict[str, Sequence[int]] = {'lora_A': (rank, inputs), 'lora_B': (outputs, rank)}
  return shapes | {'lora_E': (rank, 1)} if 'lora_E' in tensors else shapes
