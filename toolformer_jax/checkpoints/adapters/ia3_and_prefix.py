"""IA3 and prefix tuning in PEFT's format."""

from collections.abc import Mapping, Sequence
from typing import Any

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
from toolformer_jax.models.adapter_config import Ia3Config, PrefixConfig
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel

PROMPT = 'prompt_embeddings'  # PEFT's name of the tensor of a prefix


def write_ia3(model: LanguageModel, adapter: Ia3Config
              ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns adapter_config.json and the tensors of an IA3 adapter.

  Raises:
    UserError: modules that share a linear layer cannot be scaled as they are.
  """
  tensors, targets, feedforward = {}, set(), set()
  for linear, layer in adapted(model):
    name, targeted = f'{linear.name.format(layer)}.ia3_l', linear.targets(model.config)
    targets.add(linear.short)
    if not {path[-1] for path in targeted} & {*adapter.feedforward_modules}:
      tensors[name] = np.concatenate([
          layer_weights(model, path, layer)['scale'].ravel() if path in targeted
          else np.ones(model.config.modules[path[-1]][1], np.float32)
          for path in linear.parts])[:, None]
    elif len(linear.parts) == 1:
      tensors[name] = layer_weights(model, linear.parts[0], layer)['scale'].reshape(1, -1)
      feedforward.add(linear.short)
    else:
      raise UserError(f'{", ".join(path[-1] for path in linear.parts)} are one layer in '
                      'transformers, whose input cannot be scaled for each of them; take them out '
                      'of feedforward_modules')
  return {'peft_type': 'IA3', 'target_modules': sorted(targets),
          'feedforward_modules': sorted(feedforward)}, tensors


def read_ia3(config: DecoderConfig, found: Mapping[tuple[Linear, int], Mapping[str, np.ndarray]]
             ) -> tuple[Ia3Config, Weights]:
  """Returns the settings and the weights of an IA3 adapter; layers without have ones."""
  weights: Weights = {}
  feedforward: list[Path] = []
  for (linear, layer), tensors in found.items():
    scale, first = tensors['ia3_l'], 0
    for path in linear.parts:
      inputs, outputs = config.modules[path[-1]]
      of_input = _scales_input(config, linear, scale)
      size = inputs if of_input else outputs
      if of_input and path not in feedforward:
        feedforward.append(path)
      stack = weights.setdefault(path, {'scale': np.ones((config.layers, size), np.float32)})
      if stack['scale'].shape[1] != size:
        raise UserError(f'{linear.name.format(layer)} is a feedforward module in some layers alone')
      stack['scale'][layer] = scale.ravel() if of_input else scale[first:first + size, 0]
      first += outputs
  names = target_modules(config, list(weights)) or tuple(config.modules)
  return Ia3Config(target_modules=names,
                   feedforward_modules=target_modules(config, feedforward)), weights


def expected_shape(config: DecoderConfig, linear: Linear, tensors: Mapping[str, np.ndarray]
                   ) -> dict[str, Sequence[int]]:
  """Returns the shape that the tensor of a linear layer must have."""
  scale = tensors['ia3_l']
  if _scales_input(config, linear, scale):
    return {'ia3_l': (1, config.modules[linear.parts[0][-1]][0])}
  return {'ia3_l': (sum(config.modules[path[-1]][1] for path in linear.parts), 1)}


def _scales_input(config: DecoderConfig, linear: Linear, scale: np.ndarray) -> bool:
  return scale.shape == (1, config.modules[linear.parts[0][-1]][0])


def write_prefix(model: LanguageModel, adapter: PrefixConfig
                 ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Returns adapter_config.json and the tensor of a tuned prefix."""
  config, S = model.config, adapter.num_virtual_tokens
  k_LKHS, v_LKSH = (np.asarray(model.variables[ADAPTER][name], np.float32)[:, 0]
                    for name in ('prefix_keys', 'prefix_values'))
  pairs_L2KSH = np.stack([k_LKHS.swapaxes(2, 3), v_LKSH], 1)
  fields = {
      'peft_type': 'PREFIX_TUNING', 'num_virtual_tokens': S, 'num_layers': config.layers,
      'num_attention_heads': config.kv_heads, 'token_dim': config.kv_heads * config.head_dim,
      'num_transformer_submodules': 1, 'encoder_hidden_size': config.kv_heads * config.head_dim,
      'prefix_projection': False}
  return fields, {PROMPT: pairs_L2KSH.transpose(3, 0, 1, 2, 4).reshape(S, -1)}


def read_prefix(config: DecoderConfig, prompt: np.ndarray) -> tuple[PrefixConfig, Weights]:
  """Returns the settings and the weights of a tuned prefix.

  Raises:
    UserError: it belongs to a model of other sizes.
  """
  L, K, H = config.layers, config.kv_heads, config.head_dim
  if prompt.ndim != 2 or prompt.shape[1] != 2 * L * K * H:
    raise UserError(f'{PROMPT} has the shape {prompt.shape}, but for this model it must be '
                    f'(virtual tokens, {2 * L * K * H})')
  S = len(prompt)
  pairs_L2KSH = prompt.reshape(S, L, 2, K, H).transpose(1, 2, 3, 0, 4)
  weights = {'prefix_keys': pairs_L2KSH[:, 0].swapaxes(2, 3), 'prefix_values': pairs_L2KSH[:, 1]}
  return PrefixConfig(num_virtual_tokens=S), {(): weights}
