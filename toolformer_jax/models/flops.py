"""Parameters and useful floating-point operations of a decoder: the one formula of all rates.

Useful is what the model needs: nothing padded, nothing computed twice (remat), and of causal
attention only what a token sees (half of the square; tables that count all of it are not
comparable). Two operations for each weight of a product and token, and four for each pair of tokens
and dimension of a head: scores, and values weighted by them.
"""

import math
from collections.abc import Sequence

import jax

from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.runtime.chips import chip_of


def parameters(config: DecoderConfig) -> int:
  """Returns how many numbers the decoder consists of, adapters not counted."""
  c = config
  norm = 2 if c.norm == 'layer' else 1
  outer = 1 if c.parallel_block else 4 if c.sandwich_norm else 2
  norms = norm * (outer * c.embed_dim + 2 * c.head_dim * c.qk_norm)
  biases = (c.qkv_bias * (c.heads + 2 * c.kv_heads) * c.head_dim + c.out_bias * c.embed_dim
            + c.mlp_bias * (c.mlp_dim * (2 if c.gated_mlp else 1) + c.embed_dim))
  block = _products(c) + norms + biases
  positions = c.max_positions if c.positions == 'learned' else 0
  tables = (c.vocab_size * (1 if c.tied_head else 2) + positions) * c.embed_dim
  head_bias = c.vocab_size if c.head_bias and not c.tied_head else 0
  return c.layers * block + tables + head_bias + norm * c.embed_dim


def adapter_parameters(config: DecoderConfig) -> int:
  """Returns how many numbers the low-rank adapters consist of."""
  per_layer = sum(rows + columns for rows, columns in _projections(config))
  return config.layers * config.lora_rank * per_layer


def forward_flops(config: DecoderConfig, tokens: int, before: int = 0, logits: int = 0) -> int:
  """Returns the operations of `tokens` tokens after `before` others, with `logits` projections."""
  weights = config.layers * _products(config) + adapter_parameters(config)
  return (2 * tokens * weights + _attention_flops(config, tokens, before)
          + 2 * logits * config.embed_dim * config.vocab_size)


def training_flops(config: DecoderConfig, tokens: int) -> int:
  """Returns the operations of a forward and backward pass of a sequence of `tokens` tokens.

  Of a product of weights and activations the backward pass computes both gradients: two more
  products. Weights beside adapters are not trained and get none. A packed row counts as one
  sequence, though its texts do not see each other.
  """
  frozen = config.layers * _products(config) + config.embed_dim * config.vocab_size
  passes = 2 if config.lora_rank else 3
  return (2 * tokens * (passes * frozen + 3 * adapter_parameters(config))
          + 3 * _attention_flops(config, tokens, 0))


def utilization(flops_per_s: float, devices: Sequence[jax.Device]) -> float | None:
  """Returns the share (MFU) of the bfloat16 peak of `devices` that `flops_per_s` useful ones are.

  None where a device's peak is not known, as of any CPU.
  """
  chips = [chip_of(device) for device in devices]
  if not all(chips):
    return None
  return flops_per_s / math.fsum(chip.flops_per_s for chip in chips)


def _attention_flops(config: DecoderConfig, tokens: int, before: int) -> int:
  far = _pairs(before + tokens) - _pairs(before)
  near = _pairs(before + tokens, config.sliding_window) - _pairs(before, config.sliding_window)
  reaching_far = config.layers // config.global_every if config.sliding_window else config.layers
  pairs = reaching_far * far + (config.layers - reaching_far) * near
  return 4 * pairs * config.heads * config.head_dim


def _pairs(tokens: int, window: int = 0) -> int:
  """Returns how many tokens all tokens of a sequence see together, themselves included."""
  beyond = max(0, tokens - window) if window else 0
  return (tokens * (tokens + 1) - beyond * (beyond + 1)) // 2


def _products(config: DecoderConfig) -> int:
  """Returns how many weights the products of one block have."""
  return sum(rows * columns for rows, columns in _projections(config))


def _projections(config: DecoderConfig) -> list[tuple[int, int]]:
  """Returns the sizes (in, out) of each product of weights in one block."""
  c = config
  queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
  attention = [(c.embed_dim, queries), (c.embed_dim, keys), (c.embed_dim, keys),
               (queries, c.embed_dim)]
  ups = [(c.embed_dim, c.mlp_dim)] * (2 if c.gated_mlp else 1)
  return [*attention, *ups, (c.mlp_dim, c.embed_dim)]
