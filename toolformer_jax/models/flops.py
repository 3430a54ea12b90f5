"""Formulas for the number of parameters and of useful floating-point operations.

Useful operations are those that the model needs. Padding and recomputation (remat) do not count,
and causal attention counts only the tokens that are attended to, half of the square; figures that
count all of it are not comparable. A matrix product takes two operations for each weight and
token. Attention takes four for each dimension of a head and each pair of a token and a token that
it attends to: two for the score, two for the weighted sum of values.
"""

import math
from collections.abc import Sequence

import jax

from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  BottleneckConfig,
  Ia3Config,
  LoraConfig,
  LoraStackConfig,
  PrefixConfig,
)
from toolformer_jax.models.config import DecoderConfig, RematPolicy
from toolformer_jax.runtime.chips import chip_of


def num_parameters(config: DecoderConfig) -> int:
  """Returns the number of the decoder's parameters, without adapters."""
  c = config
  norm = 2 if c.norm == 'layer' else 1
  norms_per_block = 1 if c.parallel_block else 4 if c.sandwich_norm else 2
  norms = norm * (norms_per_block * c.embed_dim + 2 * c.head_dim * c.qk_norm)
  biases = (c.qkv_bias * (c.heads + 2 * c.kv_heads) * c.head_dim + c.out_bias * c.embed_dim
            + c.mlp_bias * (c.mlp_dim * (2 if c.gated_mlp else 1) + c.embed_dim))
  block = block_weights(c) + norms + biases
  positions = c.max_positions if c.positions == 'learned' else 0
  tables = (c.vocab_size * (1 if c.tied_head else 2) + positions) * c.embed_dim
  head_bias = c.vocab_size if c.head_bias and not c.tied_head else 0
  return c.layers * block + tables + head_bias + norm * c.embed_dim


def num_adapter_parameters(config: DecoderConfig) -> int:
  """Returns the number of parameters of the adapter."""
  adapter, extra = config.adapter, 0
  match adapter:
    case AdaLoraConfig():
      extra = len(config.adapted_modules) * adapter.init_rank
    case Ia3Config():
      extra = sum(sizes[name not in adapter.feedforward_modules]
                  for name, sizes in config.adapted_modules.items())
    case BottleneckConfig():
      extra = _bottlenecks(adapter) * (adapter.size(config.embed_dim) + config.embed_dim)
    case PrefixConfig():
      extra = 2 * adapter.num_virtual_tokens * config.kv_heads * config.head_dim
  return config.layers * (_adapter_weights(config) + extra)


def forward_flops(config: DecoderConfig, tokens: int, cached: int = 0, logits: int = 0) -> int:
  """Returns the operations of a forward pass.

  Args:
    config: of the decoder.
    tokens: number of tokens that are computed.
    cached: number of earlier tokens, whose keys and values are cached.
    logits: number of tokens at which logits are computed.
  """
  weights = config.layers * (block_weights(config) + _adapter_weights(config))
  return (2 * tokens * weights + _attention_flops(config, tokens, cached)
          + 2 * logits * config.embed_dim * config.vocab_size)


def training_flops(config: DecoderConfig, tokens: int) -> int:
  """Returns the operations of a forward and backward pass of a sequence of `tokens` tokens.

  The backward pass computes two more products for each product of weights and activations, one
  gradient each. With adapters the other weights are frozen and get no gradient. A packed row counts
  as one sequence, although its texts do not attend to each other.
  """
  weights = config.layers * block_weights(config) + config.embed_dim * config.vocab_size
  passes = 2 if config.adapter else 3
  return (2 * tokens * (passes * weights + 3 * config.layers * _adapter_weights(config))
          + 3 * _attention_flops(config, tokens, 0))


def recomputed_flops(config: DecoderConfig, tokens: int, policy: RematPolicy) -> int:
  """Returns the operations that the backward pass of a sequence of `tokens` tokens repeats.

  XLA leaves out products that no gradient depends on. With adapters other than low-rank ones this
  is an upper bound.
  """
  if policy == 'minimal':
    return 0
  left_out = _only_added(config)
  if policy == 'save_qkv_proj':
    left_out |= {'query', 'key', 'value'}
  weights = block_weights(config) + _adapter_weights(config)
  for name in left_out:
    inputs, outputs = config.modules[name]
    weights -= inputs * outputs
    if isinstance(config.adapter, LoraConfig | AdaLoraConfig) and name in config.adapted_modules:
      weights -= config.adapter.rank_of(name) * outputs
  return 2 * tokens * config.layers * weights + _attention_flops(config, tokens, 0)


def _only_added(config: DecoderConfig) -> set[str]:
  """Returns the modules whose outputs are only added to the hidden states that leave the block."""
  if config.sandwich_norm or isinstance(config.adapter, BottleneckConfig | Ia3Config):
    return set()
  return {'down', 'out'} if config.parallel_block else {'down'}


def utilization(flops_per_s: float, devices: Sequence[jax.Device]) -> float | None:
  """Returns the model flops utilization (MFU): the share of the devices' bfloat16 peak.

  Args:
    flops_per_s: useful operations per second, of all devices together.
    devices: that compute them.

  Returns:
    the share; None if the peak of a device is not known, which is the case for CPUs.
  """
  chips = [chip_of(device) for device in devices]
  peaks = [chip.flops_per_s for chip in chips if chip]
  return flops_per_s / math.fsum(peaks) if len(peaks) == len(chips) else None


def _attention_flops(config: DecoderConfig, tokens: int, cached: int) -> int:
  """Returns the operations of the attention of `tokens` tokens after `cached` ones."""
  c, cached = config, cached + config.max_positions - config.max_tokens
  global_layers = c.layers // c.global_every if c.sliding_window else c.layers
  global_pairs = _attended_pairs(cached + tokens) - _attended_pairs(cached)
  local_pairs = (_attended_pairs(cached + tokens, c.sliding_window)
                 - _attended_pairs(cached, c.sliding_window))
  pairs = global_layers * global_pairs + (c.layers - global_layers) * local_pairs
  return 4 * pairs * c.heads * c.head_dim


def _attended_pairs(tokens: int, window: int = 0) -> int:
  """Returns the number of pairs of a token and a token that it attends to, itself included."""
  outside = max(0, tokens - window) if window else 0
  return (tokens * (tokens + 1) - outside * (outside + 1)) // 2


def block_weights(config: DecoderConfig) -> int:
  """Returns the number of weights in the matrix products of one block."""
  return sum(inputs * outputs for inputs, outputs in config.modules.values())


def _adapter_weights(config: DecoderConfig) -> int:
  """Returns the number of weights in the matrix products of one block's adapters."""
  adapter = config.adapter
  match adapter:
    case LoraConfig() | AdaLoraConfig() | LoraStackConfig():
      return sum(adapter.rank_of(name) * (inputs + outputs)
                 for name, (inputs, outputs) in config.adapted_modules.items())
    case BottleneckConfig():
      size = adapter.size(config.embed_dim)
      return _bottlenecks(adapter) * 2 * size * config.embed_dim
  return 0


def _bottlenecks(adapter: BottleneckConfig) -> int:
  """Returns the number of bottlenecks in a block."""
  return 2 if adapter.placement == 'houlsby' else 1
