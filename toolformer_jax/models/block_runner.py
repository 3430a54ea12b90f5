"""Runs a decoder block by block, and measures what the matrix products of a block get as input."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from toolformer_jax.models.attention_mask import attention_inputs
from toolformer_jax.models.block import Block
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import embed
from toolformer_jax.models.layers import Einsum


@functools.partial(jax.jit, static_argnames='config')
def embed_rows(params: dict[str, Any], tokens_BT: jax.Array, config: DecoderConfig) -> jax.Array:
  """Returns what the first block gets, [B, T, D].

  Args:
    params: of the decoder.
    tokens_BT: rows of tokens without padding.
    config: of the decoder.
  """
  return embed(config, params['embedding'], params.get('position_embedding'), tokens_BT,
               jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape))


@functools.partial(jax.jit, static_argnames=('is_global', 'config', 'products'))
def run_block(params: dict[str, Any], x_BTD: jax.Array, is_global: bool, config: DecoderConfig,
              products: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns what the next block gets, [B, T, D], and sums over the inputs of matrix products.

  Args:
    params: of this block.
    x_BTD: what it gets, in rows without padding.
    is_global: whether its tokens attend to all before them, and not only to a window.
    config: of the decoder.
    products: return sums of outer products rather than of squares.

  Returns:
    the output; and for each matrix product of the block, by its path such as 'attention/query', the
    sum over all tokens of the squares [I] of its input, or of the outer products [I, I].
  """
  inputs: dict[str, jax.Array] = {}
  def watch(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
            context: nn.module.InterceptorContext) -> Any:
    if isinstance(context.module, Einsum) and context.method_name == '__call__':
      inputs['/'.join(context.module.path)] = args[0]
    return call(*args, **kwargs)
  B, T, _ = x_BTD.shape
  positions_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
  attention = attention_inputs(config, positions_BT, positions_BT, None, None, (), with_masks=True)
  with nn.intercept_methods(watch):
    outputs: Any = Block(config, 'xla', 0.0).apply(
        {'params': params}, (x_BTD, None), 0, (), jnp.int32(is_global), attention)
  (y_BTD, _), _ = outputs
  sums: dict[int, jax.Array] = {}  # queries, keys and values have the same input
  for x in inputs.values():
    x_XI = x.reshape(B * T, math.prod(x.shape[2:])).astype(jnp.float32)
    if id(x) not in sums:
      sums[id(x)] = x_XI.T @ x_XI if products else (x_XI * x_XI).sum(0)
  return y_BTD, {path: sums[id(x)] for path, x in inputs.items()}
