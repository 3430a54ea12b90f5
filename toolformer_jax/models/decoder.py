"""The decoder: embedding, a stack of blocks, projection to the vocabulary."""

import operator
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from toolformer_jax.models.adapter_config import LoraStackConfig, PrefixConfig
from toolformer_jax.models.adapters import ADAPTER, adapter_numbers, tuned_prefix
from toolformer_jax.models.attention import Kernel, supports_length
from toolformer_jax.models.attention_mask import (
  AttentionInputs,
  absolute_positions,
  attention_inputs,
)
from toolformer_jax.models.block import Block
from toolformer_jax.models.config import INTEGER_DTYPES, DecoderConfig, RematPolicy
from toolformer_jax.models.kv_cache import KVCache, Prefix
from toolformer_jax.models.layers import Dropout, Einsum, Norm
from toolformer_jax.models.ops import shard_rows_only, weight_einsum
from toolformer_jax.models.remat import checkpoint_policy
from toolformer_jax.sharding import constrain

BLOCKS = 'blocks'  # name of the variables of all layers, stacked


def block_name(layer: int) -> str:
  """Returns the name of one layer's variables where layers are not stacked."""
  return f'block_{layer}'


class Decoder(nn.Module):
  """A decoder-only transformer.

  Attributes:
    config: sizes and options.
    remat_policy: what of a block is kept for the backward pass.
    scan_layers: whether the blocks run in a loop over stacked variables. Otherwise each has
      variables of its own, which takes longer to compile.
    kernel: what computes attention in rows without cache and prefixes whose length it supports.
      XLA does elsewhere.
    dropout: rate of the dropout on the embeddings and on what a block adds to them, active where
      `apply` gets rngs={'dropout': key}.
  """

  config: DecoderConfig
  remat_policy: RematPolicy = 'minimal'
  scan_layers: bool = True
  kernel: Kernel = 'xla'
  dropout: float = 0.0

  @nn.compact
  def __call__(
      self,
      tokens_BT: jax.Array,
      *,
      positions_BT: jax.Array | None = None,
      segment_ids_BT: jax.Array | None = None,
      cache: KVCache | None = None,
      prefixes: Sequence[Prefix] = (),
      logits_at_BM: jax.Array | None = None,
      embedding_offsets_BTD: jax.Array | None = None,
      adapter_ids_BT: jax.Array | None = None,
      return_hidden: bool = False,
  ) -> tuple[jax.Array, KVCache | None]:
    """Returns the logits of each next token, and the cache with `tokens_BT` appended.

    Args:
      tokens_BT: token ids. Padding after a row's last token is computed but never read, provided
        that the caller sets the cache's length back.
      positions_BT: position of each token; by default they continue those of prefixes and cache.
        Those of a tuned prefix are added.
      segment_ids_BT: tokens attend only to their own segment (packed rows). With a cache this is
        allowed only if it is empty and has as many slots as the rows have tokens.
      cache: earlier tokens of each row, updated in place if donated; in the layout 'per_layer'
        without `scan_layers`.
      prefixes: earlier tokens that rows share; they come before those of the cache.
      logits_at_BM: indices into T at which logits are computed; by default at all.
      embedding_offsets_BTD: added to the embeddings of the tokens (adversarial training).
      adapter_ids_BT: of a stack of adapters, the number of each token's; by default the active one.
      return_hidden: return the normalised hidden states, for `apply_lm_head`, and no logits.

    Returns:
      logits in the computation's dtype, [B, T, V] or [B, M, V] with `logits_at_BM` (with
      `return_hidden` D in place of V); and the cache with length + T, or None.
    """
    c = self.config
    B, T = tokens_BT.shape
    if isinstance(c.adapter, PrefixConfig):
      prefixes = [tuned_prefix(self, c, c.adapter, B), *prefixes]
      positions_BT = None if positions_BT is None else (
          positions_BT + c.adapter.num_virtual_tokens)
    absolute_BT = absolute_positions(B, T, cache, prefixes)
    positions_BT = absolute_BT if positions_BT is None else positions_BT
    embedding_VD = self.param(
        'embedding', _normal_init('vocab', 'embed'), (c.vocab_size, c.embed_dim), jnp.float32)
    x_BTD = self._embed(embedding_VD, tokens_BT, positions_BT)
    if embedding_offsets_BTD is not None:
      x_BTD = x_BTD + embedding_offsets_BTD.astype(x_BTD.dtype)
    x_BTD = Dropout(self.dropout, name='dropout')(x_BTD)
    use_kernel = cache is None and not prefixes and supports_length(self.kernel, T)
    inputs = attention_inputs(
        c, positions_BT, absolute_BT, segment_ids_BT, cache, prefixes, with_masks=not use_kernel)
    kernel = self.kernel if use_kernel else 'xla'
    x_BTD, cache = self._blocks(kernel, x_BTD, cache, tuple(prefixes), inputs, adapter_ids_BT)
    x_BTD = Norm(c, name='final_norm')(x_BTD)
    if logits_at_BM is not None:
      x_BTD = jnp.take_along_axis(x_BTD, logits_at_BM[..., None], 1)
    if cache is not None:
      cache = cache.with_length(cache.length_B + T)
    return (x_BTD if return_hidden else self._lm_head(embedding_VD, x_BTD)), cache

  def _embed(self, embedding_VD: jax.Array, tokens_BT: jax.Array, positions_BT: jax.Array
             ) -> jax.Array:
    c = self.config
    table_PD = None
    if c.positions == 'learned':
      table_PD = self.param('position_embedding', _normal_init(None, 'embed'),
                            (c.max_positions, c.embed_dim), jnp.float32)
    return embed(c, embedding_VD, table_PD, tokens_BT, positions_BT)

  def _blocks(self, kernel: Kernel, x_BTD: jax.Array, cache: KVCache | None,
              prefixes: tuple[Prefix, ...], inputs: AttentionInputs,
              adapter_ids_BT: jax.Array | None) -> tuple[jax.Array, KVCache | None]:
    """Returns the hidden states and the cache after all blocks."""
    if isinstance(self.config.adapter, LoraStackConfig):
      adapter_ids_BT = adapter_numbers(self, adapter_ids_BT, *x_BTD.shape[:2])
    block = Block
    if cache is None:
      # Recomputing norms, activations and the softmax is cheap, and halves the memory of training.
      block = nn.remat(Block, prevent_cse=not self.scan_layers,
                       policy=checkpoint_policy(self.remat_policy))
    # Limits are per row and not per layer, and the masks contain them already.
    prefixes = [Prefix(prefix.k_LPKHS, prefix.v_LPKSH, None) for prefix in prefixes]
    run = self._scanned_blocks if self.scan_layers else self._unrolled_blocks
    return run(block, kernel, x_BTD, cache, prefixes, inputs, adapter_ids_BT)

  def _scanned_blocks(self, block: type[nn.Module], kernel: Kernel, x_BTD: jax.Array,
                      cache: KVCache | None, prefixes: Sequence[Prefix], inputs: AttentionInputs,
                      adapter_ids_BT: jax.Array | None) -> tuple[jax.Array, KVCache | None]:
    c = self.config
    stack = nn.scan(
        block, variable_axes={'params': 0, ADAPTER: 0, 'intermediates': 0},
        split_rngs={'params': True, 'dropout': True}, in_axes=(0, 0, 0, nn.broadcast, nn.broadcast),
        length=c.layers, metadata_params={nn.PARTITION_NAME: 'layers'})(
            c, kernel, self.dropout, name=BLOCKS)
    carry, _ = stack((x_BTD, cache), jnp.arange(c.layers), prefixes, self._is_global(), inputs,
                     adapter_ids_BT)
    return carry

  def _unrolled_blocks(self, block: type[nn.Module], kernel: Kernel, x_BTD: jax.Array,
                       cache: KVCache | None, prefixes: Sequence[Prefix], inputs: AttentionInputs,
                       adapter_ids_BT: jax.Array | None) -> tuple[jax.Array, KVCache | None]:
    caches = []
    for layer in range(self.config.layers):
      layer_cache = cache.layer(layer) if cache else None
      layer_prefixes = jax.tree.map(operator.itemgetter(layer), prefixes)
      (x_BTD, layer_cache), _ = block(self.config, kernel, self.dropout, name=block_name(layer))(
          (x_BTD, layer_cache), 0, layer_prefixes, self._is_global()[layer], inputs, adapter_ids_BT)
      caches.append(layer_cache)
    return x_BTD, KVCache.from_layers(caches) if cache else None

  def _is_global(self) -> jax.Array:
    """Returns whether each layer is global (1) or local (0), [L]; used with a sliding window."""
    numbers_L = jnp.arange(1, self.config.layers + 1)
    return (numbers_L % self.config.global_every == 0).astype(jnp.int32)

  def _lm_head(self, embedding_VD: jax.Array, x_BTD: jax.Array) -> jax.Array:
    if self.config.tied_head:
      return _apply_tied_head(self.config, embedding_VD, x_BTD)
    return constrain(_untied_head(self.config, name='head')(x_BTD), 'batch', None, 'vocab')


def embed(config: DecoderConfig, embedding_VD: jax.Array, table_PD: jax.Array | None,
          tokens_BT: jax.Array, positions_BT: jax.Array) -> jax.Array:
  """Returns what the first block gets, [B, T, D].

  Args:
    config: of the decoder.
    embedding_VD: embeddings of the tokens.
    table_PD: embeddings of the positions, if they are learned.
    tokens_BT, positions_BT: the tokens, and their positions.
  """
  x_BTD = jnp.take(shard_rows_only(embedding_VD), tokens_BT, axis=0)
  # Rounded as `cast_for_inference` rounds the table.
  x_BTD = x_BTD.astype(config.product_dtype).astype(config.activation_dtype)
  if table_PD is not None:
    # Positions of padding may exceed the table: a NaN would reach other tokens as 0 * NaN.
    x_BTD += jnp.take(table_PD, positions_BT, axis=0, mode='clip').astype(x_BTD.dtype)
  if config.scaled_embedding:
    x_BTD *= jnp.asarray(config.embed_dim**0.5, x_BTD.dtype)
  return constrain(x_BTD, 'batch', None, None)


def _untied_head(config: DecoderConfig, **module_options: Any) -> Einsum:
  """Returns the projection to the vocabulary that has a kernel of its own."""
  dtype = 'float32' if config.dtype in INTEGER_DTYPES else config.dtype
  config = config.replace(adapter=None, dtype=dtype)
  return Einsum('btd,dv->btv', (config.embed_dim, config.vocab_size), ('embed', 'vocab'),
                config.head_bias, config, **module_options)


def _apply_tied_head(config: DecoderConfig, embedding_VD: jax.Array, x_BTD: jax.Array) -> jax.Array:
  logits_BTV = weight_einsum('btd,vd->btv', config, x_BTD, embedding_VD)
  return constrain(logits_BTV, 'batch', None, 'vocab')


def lm_head_params(config: DecoderConfig, params: dict[str, Any]) -> Any:
  """Returns the part of the decoder's parameters that `apply_lm_head` needs."""
  return params['embedding' if config.tied_head else 'head']


def apply_with_cache(decoder: Decoder, variables: Any, tokens_BT: jax.Array, *, cache: KVCache,
                     **options: Any) -> tuple[jax.Array, KVCache]:
  """Returns what `decoder`, called with `options`, computes of new tokens; and the cache with them.
  """
  outputs: Any = decoder.apply(variables, tokens_BT, cache=cache, **options)
  return outputs


def _normal_init(*axes: str | None) -> nn.initializers.Initializer:
  """Returns the initializer of an embedding. Flax takes the array out of the box with the axes."""
  return nn.with_logical_partitioning(nn.initializers.normal(0.02), axes)


def apply_lm_head(config: DecoderConfig, head_params: Any, x_BTD: jax.Array) -> jax.Array:
  """Returns the logits [B, T, V] of hidden states.

  Args:
    config: of the decoder.
    head_params: from `lm_head_params`.
    x_BTD: from the decoder with `return_hidden`.
  """
  if config.tied_head:
    return _apply_tied_head(config, head_params, x_BTD)
  logits_BTV: Any = _untied_head(config, parent=None).apply({'params': head_params}, x_BTD)
  return constrain(logits_BTV, 'batch', None, 'vocab')
