"""The decoder: embedding, equal blocks in a loop or one after the other, head."""

import operator
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from toolformer_jax.models.attention import (
  Kernel,
  attend,
  attend_causal,
  attend_packed,
  takes_length,
)
from toolformer_jax.models.attention_mask import (
    AttentionInputs,
    absolute_positions,
    attention_inputs,
)
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.kv_cache import KVCache, Prefix
from toolformer_jax.models.layers import Einsum, Norm, rotate
from toolformer_jax.models.ops import MATMUL_OUTPUT, einsum, split_by_rows
from toolformer_jax.sharding import constrain

BLOCKS = 'blocks'  # the variables of all layers, stacked

_ACTIVATIONS = {'silu': nn.silu, 'gelu_tanh': nn.gelu}


class Attention(nn.Module):
  """Causal self-attention with grouped key/value heads, an own cache and shared prefixes."""

  config: DecoderConfig
  kernel: Kernel

  @nn.compact
  def __call__(
      self, x_BTD: jax.Array, cache: KVCache | None, layer: jax.Array | int,
      prefixes: Sequence[Prefix], is_global: jax.Array, inputs: AttentionInputs,
  ) -> tuple[jax.Array, KVCache | None]:
    """Returns the output [B, T, D], and the cache with the new keys and values."""
    c = self.config
    if c.sliding_window:
      inputs = inputs.for_layer(is_global)
    def project(name, heads, axis):
      x_BTNH = Einsum('btd,dnh->btnh', (c.embed_dim, heads, c.head_dim), ('embed', axis, None),
                      c.qkv_bias, c, name=name)(x_BTD)
      return constrain(x_BTNH, 'batch', None, axis, None)
    q_BTNH = project('query', c.heads, 'heads')
    k_BTKH = project('key', c.kv_heads, 'kv_heads')
    v_BTKH = project('value', c.kv_heads, 'kv_heads')
    if c.qk_norm:
      q_BTNH = Norm(c, name='query_norm')(q_BTNH)
      k_BTKH = Norm(c, name='key_norm')(k_BTKH)
    if c.rotary_dim:
      q_BTNH = rotate(q_BTNH, inputs.rotary_angles, c)
      k_BTKH = rotate(k_BTKH, inputs.rotary_angles, c)
    if self.kernel == 'xla':
      alone = cache is None and not prefixes
      own, cache = _write(cache, layer, k_BTKH, v_BTKH)
      shared = [(prefix.k_LPKHS, prefix.v_LPKSH) for prefix in prefixes]
      sources = [(k, v, mask) for (k, v), mask in zip([*shared, own], inputs.masks, strict=True)]
      out_BTNH = attend_causal(q_BTNH, *sources[0]) if alone else attend(q_BTNH, sources)
    else:
      def packed(window):
        return attend_packed(q_BTNH, k_BTKH, v_BTKH, inputs.segments_BT, self.kernel, window)
      # A kernel is compiled for its window; a row that is no longer than the window needs none.
      if 0 < c.sliding_window < x_BTD.shape[1]:
        out_BTNH = jax.lax.cond(is_global, lambda: packed(0), lambda: packed(c.sliding_window))
      else:
        out_BTNH = packed(0)
    y_BTD = Einsum('btnh,nhd->btd', (c.heads, c.head_dim, c.embed_dim), ('heads', None, 'embed'),
                   c.out_bias, c, name='out')(out_BTNH)
    return y_BTD, cache


def _write(cache: KVCache | None, layer: jax.Array | int, k_BTKH: jax.Array, v_BTKH: jax.Array
           ) -> tuple[tuple[jax.Array, jax.Array], KVCache | None]:
  """Returns the keys and values to attend to, and the cache with the new ones written into it."""
  if cache is None:
    return (k_BTKH.transpose(0, 2, 3, 1), v_BTKH.swapaxes(1, 2)), None
  B, T = k_BTKH.shape[:2]
  rows_B1, slots_BT = jnp.arange(B)[:, None], cache.length_B[:, None] + jnp.arange(T)
  # Written in place in the carried array: a scanned copy per layer costs twice the cache's memory.
  k_LBKHS = cache.keys.at[layer, rows_B1, :, :, slots_BT].set(k_BTKH, mode='drop')
  v_LBKSH = cache.values.at[layer, rows_B1, :, slots_BT].set(v_BTKH, mode='drop')
  own = tuple(jax.lax.dynamic_index_in_dim(x, layer, 0, False) for x in (k_LBKHS, v_LBKSH))
  return own, KVCache(k_LBKHS, v_LBKSH, cache.length_B)


class Mlp(nn.Module):
  """The feed-forward half of a block, plain or gated."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    c = self.config
    def up(name):
      x_BTF = Einsum('btd,df->btf', (c.embed_dim, c.mlp_dim), ('embed', 'mlp'), c.mlp_bias, c,
                     name=name)(x_BTD)
      return constrain(x_BTF, 'batch', None, 'mlp')
    activate = _ACTIVATIONS[c.activation]
    hidden_BTF = activate(up('gate')) * up('up') if c.gated_mlp else activate(up('up'))
    return Einsum('btf,fd->btd', (c.mlp_dim, c.embed_dim), ('mlp', 'embed'), c.mlp_bias, c,
                  name='down')(hidden_BTF)


class _Dropout(nn.Module):
  """Dropout that is off unless `apply` gets a key for it, rngs={'dropout': key}."""

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return nn.Dropout(self.rate, deterministic=not self.has_rng('dropout'))(x)


class Block(nn.Module):
  """One layer: attention and MLP, in sequence or in parallel."""

  config: DecoderConfig
  kernel: Kernel
  dropout: float

  @nn.compact
  def __call__(
      self, carry: tuple[jax.Array, KVCache | None], layer: jax.Array | int,
      prefixes: Sequence[Prefix], is_global: jax.Array, inputs: AttentionInputs,
  ) -> tuple[tuple[jax.Array, KVCache | None], None]:
    """Returns the hidden states [B, T, D] and the cache, as `nn.scan` has it."""
    c = self.config
    x_BTD, cache = carry
    drop, mlp = _Dropout(self.dropout, name='dropout'), Mlp(c, name='mlp')
    norm_BTD = Norm(c, name='attention_norm')(x_BTD)
    y_BTD, cache = Attention(c, self.kernel, name='attention')(
        norm_BTD, cache, layer, prefixes, is_global, inputs)
    if c.parallel_block:
      x_BTD = x_BTD + drop(y_BTD + mlp(norm_BTD))
    else:
      def outer(name, y_BTD):
        return drop(Norm(c, name=name)(y_BTD) if c.sandwich_norm else y_BTD)
      x_BTD = x_BTD + outer('attention_out_norm', y_BTD)
      x_BTD = x_BTD + outer('mlp_out_norm', mlp(Norm(c, name='mlp_norm')(x_BTD)))
    return (constrain(x_BTD, 'batch', None, None), cache), None


def block_name(layer: int) -> str:
  """Returns the name of one layer's variables where they are not stacked."""
  return f'block_{layer}'


class Decoder(nn.Module):
  """A decoder-only transformer.

  Attributes:
    config: its sizes and switches.
    remat: recompute all of each block's activations in the backward pass, instead of all but the
      products of matrices.
    scan: run the blocks in a loop, with stacked variables; else every block has variables of its
      own, which takes longer to compile.
    kernel: computes attention of rows without cache and prefixes whose length it takes; elsewhere
      XLA does.
    dropout: share of the embeddings and of what each half of a block adds that is dropped in
      training: where `apply` gets rngs={'dropout': key}.
  """

  config: DecoderConfig
  remat: bool = False
  scan: bool = True
  kernel: Kernel = 'xla'
  dropout: float = 0.0

  @nn.compact
  def __call__(
      self,
      tokens_BT: jax.Array,
      *,
      positions_BT: jax.Array | None = None,
      segments_BT: jax.Array | None = None,
      cache: KVCache | None = None,
      prefixes: Sequence[Prefix] = (),
      logits_at_BM: jax.Array | None = None,
      head: bool = True,
  ) -> tuple[jax.Array, KVCache | None]:
    """Returns the logits of each next token, and the cache after `tokens_BT`.

    Args:
      tokens_BT: ids. A row may be shorter: what follows its last token is computed and never read,
        if the caller sets the cache's length back.
      positions_BT: position of each token; by default they follow those of prefixes and cache.
      segments_BT: tokens see only tokens of their own segment (packed rows); with a cache only if
        it is empty and has as many slots as the rows have tokens.
      cache: earlier tokens of each row, extended in place; 'per_layer' without `scan`.
      prefixes: earlier tokens that rows share; they come before those of the cache.
      logits_at_BM: project to the vocabulary only at these indices into T; by default at all.
      head: project to the vocabulary; without it `project` does, piece by piece.

    Returns:
      logits [B, T, V] ([B, M, V] with `logits_at_BM`, without `head` [B, T, D]) in the
      computation's dtype, and the cache with length + T, or None.
    """
    c = self.config
    B, T = tokens_BT.shape
    absolute_BT = absolute_positions(B, T, cache, prefixes)
    positions_BT = absolute_BT if positions_BT is None else positions_BT
    embedding_VD = self.param(
        'embedding', nn.with_logical_partitioning(nn.initializers.normal(0.02), ('vocab', 'embed')),
        (c.vocab_size, c.embed_dim), jnp.float32)
    x_BTD = _Dropout(self.dropout, name='dropout')(
        self._embed(embedding_VD, tokens_BT, positions_BT))
    packed = cache is None and not prefixes and takes_length(self.kernel, T)
    inputs = attention_inputs(
        c, positions_BT, absolute_BT, segments_BT, cache, prefixes, with_masks=not packed)
    kernel = self.kernel if packed else 'xla'
    x_BTD, cache = self._blocks(kernel, x_BTD, cache, tuple(prefixes), inputs)
    x_BTD = Norm(c, name='final_norm')(x_BTD)
    if logits_at_BM is not None:
      x_BTD = jnp.take_along_axis(x_BTD, logits_at_BM[..., None], 1)
    if cache is not None:
      cache = cache.with_length(cache.length_B + T)
    return (self._head(embedding_VD, x_BTD) if head else x_BTD), cache

  def _embed(self, embedding_VD: jax.Array, tokens_BT: jax.Array, positions_BT: jax.Array
             ) -> jax.Array:
    x_BTD = jnp.take(split_by_rows(embedding_VD), tokens_BT, axis=0).astype(self.config.dtype)
    if self.config.positions == 'learned':
      init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, 'embed'))
      shape = (self.config.max_positions, self.config.embed_dim)
      positions_table = self.param('position_embedding', init, shape, jnp.float32)
      # Positions of padding may exceed the table: a NaN would reach other tokens as 0 * NaN.
      x_BTD += jnp.take(positions_table, positions_BT, axis=0, mode='clip').astype(x_BTD.dtype)
    if self.config.scaled_embedding:
      x_BTD *= jnp.asarray(self.config.embed_dim**0.5, x_BTD.dtype)
    return constrain(x_BTD, 'batch', None, None)

  def _blocks(self, kernel: Kernel, x_BTD: jax.Array, cache: KVCache | None,
              prefixes: tuple[Prefix, ...], inputs: AttentionInputs
              ) -> tuple[jax.Array, KVCache | None]:
    # Recomputing norms, activations and the softmax is cheap, and halves the memory of training.
    kept = None if self.remat else jax.checkpoint_policies.save_only_these_names(MATMUL_OUTPUT)
    block = Block if cache is not None else nn.remat(Block, prevent_cse=not self.scan, policy=kept)
    # Limits are per row, not per layer: the masks have them already.
    layered = [Prefix(prefix.k_LPKHS, prefix.v_LPKSH, None) for prefix in prefixes]
    if not self.scan:
      return self._unrolled_blocks(block, kernel, x_BTD, cache, layered, inputs)
    stack = nn.scan(
        block, variable_axes={'params': 0, 'lora': 0},
        split_rngs={'params': True, 'dropout': True}, in_axes=(0, 0, 0, nn.broadcast),
        length=self.config.layers, metadata_params={nn.PARTITION_NAME: 'layers'})(
            self.config, kernel, self.dropout, name=BLOCKS)
    layers_L = jnp.arange(self.config.layers)
    carry, _ = stack((x_BTD, cache), layers_L, layered, self._is_global, inputs)
    return carry

  @property
  def _is_global(self) -> jax.Array:
    """Whether each layer is global (1) or local (0), [L]; for the sliding window."""
    return (jnp.arange(1, self.config.layers + 1) % self.config.global_every == 0).astype(jnp.int32)

  def _unrolled_blocks(self, block, kernel, x_BTD, cache, layered, inputs):
    written = []
    for layer in range(self.config.layers):
      own = cache and cache.layer(layer)
      shared = jax.tree.map(operator.itemgetter(layer), layered)
      (x_BTD, own), _ = block(self.config, kernel, self.dropout, name=block_name(layer))(
          (x_BTD, own), 0, shared, self._is_global[layer], inputs)
      written.append(own and (own.keys[0], own.values[0]))
    return x_BTD, cache and KVCache(*map(tuple, zip(*written, strict=True)), cache.length_B)

  def _head(self, embedding_VD: jax.Array, x_BTD: jax.Array) -> jax.Array:
    if self.config.tied_head:
      return _project_tied(self.config, embedding_VD, x_BTD)
    return constrain(_head(self.config, name='head')(x_BTD), 'batch', None, 'vocab')


def _head(config: DecoderConfig, **placement: Any) -> Einsum:
  """Returns the projection to the vocabulary where it is not the embedding table."""
  return Einsum('btd,dv->btv', (config.embed_dim, config.vocab_size), ('embed', 'vocab'),
                config.head_bias, config.replace(lora_rank=0), **placement)


def _project_tied(config: DecoderConfig, embedding_VD: jax.Array, x_BTD: jax.Array) -> jax.Array:
  x_BTD, embedding_VD = nn.dtypes.promote_dtype(x_BTD, embedding_VD, dtype=config.dtype)
  logits_BTV = einsum('btd,vd->btv', config.dtype, x_BTD, embedding_VD)
  return constrain(logits_BTV, 'batch', None, 'vocab')


def head_variables(config: DecoderConfig, params: Any) -> Any:
  """Returns those of the decoder's parameters by which `project` projects to the vocabulary."""
  return params['embedding' if config.tied_head else 'head']


def project(config: DecoderConfig, head: Any, x_BTD: jax.Array) -> jax.Array:
  """Returns the logits [B, T, V] of hidden states, which the decoder gives with head=False.

  `head` are the decoder's `head_variables`.
  """
  if config.tied_head:
    return _project_tied(config, head, x_BTD)
  logits_BTV = _head(config, parent=None).apply({'params': head}, x_BTD)
  return constrain(logits_BTV, 'batch', None, 'vocab')
