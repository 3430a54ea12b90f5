"""One layer of the decoder: self-attention and MLP, with residual connections."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from toolformer_jax.models.adapter_config import BottleneckConfig
from toolformer_jax.models.adapters import Bottleneck
from toolformer_jax.models.attention import Kernel, attend, attend_causal, attend_packed
from toolformer_jax.models.attention_mask import AttentionInputs
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.kv_cache import KVCache, Prefix
from toolformer_jax.models.layers import Dropout, Einsum, Norm
from toolformer_jax.models.remat import QKV_PROJ
from toolformer_jax.models.rotary import apply_rotary
from toolformer_jax.sharding import constrain

_ACTIVATIONS = {'silu': nn.silu, 'gelu_tanh': nn.gelu}


class Attention(nn.Module):
  """Causal self-attention, with grouped key/value heads, a cache and shared prefixes.

  Attributes:
    config: sizes and options.
    kernel: what computes the attention; any but 'xla' needs rows without cache and prefixes.
  """

  config: DecoderConfig
  kernel: Kernel

  @nn.compact
  def __call__(
      self, x_BTD: jax.Array, cache: KVCache | None, layer: jax.Array | int,
      prefixes: Sequence[Prefix], is_global: jax.Array, inputs: AttentionInputs,
      adapter_ids_BT: jax.Array | None,
  ) -> tuple[jax.Array, KVCache | None]:
    """Returns the output [B, T, D], and the cache with the new keys and values.

    Args:
      x_BTD: normalised hidden states.
      cache: of all layers.
      layer: which layer of the cache this is.
      prefixes: this layer's keys and values of the shared prefixes.
      is_global: 1 if the layer is global, 0 if it is local.
      inputs: masks and rotary angles.
      adapter_ids_BT: of a stack of adapters, the number of each token's; otherwise None.
    """
    c = self.config
    if c.sliding_window:
      inputs = inputs.for_layer(is_global)
    q_BTNH = self._project('query', x_BTD, c.heads, 'heads', adapter_ids_BT)
    k_BTKH = self._project('key', x_BTD, c.kv_heads, 'kv_heads', adapter_ids_BT)
    v_BTKH = self._project('value', x_BTD, c.kv_heads, 'kv_heads', adapter_ids_BT)
    if c.qk_norm:
      q_BTNH = Norm(c, name='query_norm')(q_BTNH)
      k_BTKH = Norm(c, name='key_norm')(k_BTKH)
    if c.rotary_dim:
      if inputs.rotary_angles is None:
        raise ValueError('a model with rotary embeddings needs their angles')
      q_BTNH = apply_rotary(q_BTNH, inputs.rotary_angles, c)
      k_BTKH = apply_rotary(k_BTKH, inputs.rotary_angles, c)
    if c.attention_scale:  # attention itself scales by the size of a head
      q_BTNH = q_BTNH * jnp.asarray(c.attention_scale * c.head_dim**0.5, q_BTNH.dtype)
    # Kept only where `apply` is told to: inference/attention_weights.py.
    self.sow('intermediates', 'queries', q_BTNH)
    self.sow('intermediates', 'keys', k_BTKH)
    if self.kernel == 'xla':
      out_BTNH, cache = _attend_xla(q_BTNH, k_BTKH, v_BTKH, cache, layer, prefixes, inputs)
    else:
      out_BTNH = self._attend_kernel(q_BTNH, k_BTKH, v_BTKH, is_global, inputs)
    y_BTD = Einsum('btnh,nhd->btd', (c.heads, c.head_dim, c.embed_dim), ('heads', None, 'embed'),
                   c.out_bias, c, name='out')(out_BTNH, adapter_ids_BT)
    return y_BTD, cache

  def _project(self, name: str, x_BTD: jax.Array, heads: int, axis: str,
               adapter_ids_BT: jax.Array | None) -> jax.Array:
    """Returns queries, keys or values, [B, T, heads, H]."""
    c = self.config
    x_BTNH = Einsum('btd,dnh->btnh', (c.embed_dim, heads, c.head_dim), ('embed', axis, None),
                    c.qkv_bias, c, name=name)(x_BTD, adapter_ids_BT)
    return checkpoint_name(constrain(x_BTNH, 'batch', None, axis, None), QKV_PROJ)

  def _attend_kernel(self, q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array,
                     is_global: jax.Array, inputs: AttentionInputs) -> jax.Array:
    window = self.config.sliding_window
    def attend_within(window: int) -> jax.Array:
      return attend_packed(q_BTNH, k_BTKH, v_BTKH, inputs.segment_ids_BT, self.kernel, window)
    # A kernel is compiled for its window; a row that is no longer than the window needs none.
    if 0 < window < q_BTNH.shape[1]:
      return jax.lax.cond(is_global, lambda: attend_within(0), lambda: attend_within(window))
    return attend_within(0)


def _attend_xla(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, cache: KVCache | None,
    layer: jax.Array | int, prefixes: Sequence[Prefix], inputs: AttentionInputs,
) -> tuple[jax.Array, KVCache | None]:
  """Returns the attention [B, T, N, H] to prefixes, cache and new tokens, and the new cache."""
  if cache is None:
    own = k_BTKH.transpose(0, 2, 3, 1), v_BTKH.swapaxes(1, 2)
  else:
    own, cache = cache.append(layer, k_BTKH, v_BTKH)
  keys_and_values = [*((prefix.k_LPKHS, prefix.v_LPKSH) for prefix in prefixes), own]
  sources = [(k, v, mask) for (k, v), mask in zip(keys_and_values, inputs.masks, strict=True)]
  if cache is None and not prefixes:
    return attend_causal(q_BTNH, *sources[0]), cache
  return attend(q_BTNH, sources), cache


class Mlp(nn.Module):
  """The feed-forward network of a block, with or without a gate."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD: jax.Array, adapter_ids_BT: jax.Array | None) -> jax.Array:
    c, activation = self.config, _ACTIVATIONS[self.config.activation]
    up_BTF = self._project_up('up', x_BTD, adapter_ids_BT)
    if c.gated_mlp:
      hidden_BTF = activation(self._project_up('gate', x_BTD, adapter_ids_BT)) * up_BTF
    else:
      hidden_BTF = activation(up_BTF)
    return Einsum('btf,fd->btd', (c.mlp_dim, c.embed_dim), ('mlp', 'embed'), c.mlp_bias, c,
                  name='down')(hidden_BTF, adapter_ids_BT)

  def _project_up(self, name: str, x_BTD: jax.Array, adapter_ids_BT: jax.Array | None
                  ) -> jax.Array:
    c = self.config
    x_BTF = Einsum('btd,df->btf', (c.embed_dim, c.mlp_dim), ('embed', 'mlp'), c.mlp_bias, c,
                   name=name)(x_BTD, adapter_ids_BT)
    return constrain(x_BTF, 'batch', None, 'mlp')


class Block(nn.Module):
  """One layer: attention and MLP, one after the other or in parallel.

  Attributes:
    config: sizes and options.
    kernel: see `Attention`.
    dropout: rate of the dropout on the outputs of attention and MLP.
  """

  config: DecoderConfig
  kernel: Kernel
  dropout: float

  @nn.compact
  def __call__(
      self, carry: tuple[jax.Array, KVCache | None], layer: jax.Array | int,
      prefixes: Sequence[Prefix], is_global: jax.Array, inputs: AttentionInputs,
      adapter_ids_BT: jax.Array | None = None,
  ) -> tuple[tuple[jax.Array, KVCache | None], None]:
    """Returns the hidden states [B, T, D] and the cache, in the form that `nn.scan` needs.

    Args:
      carry: hidden states [B, T, D], and the cache.
      layer, prefixes, is_global, inputs, adapter_ids_BT: see `Attention`.
    """
    c = self.config
    x_BTD, cache = carry
    dropout, mlp = Dropout(self.dropout, name='dropout'), Mlp(c, name='mlp')
    norm_BTD = Norm(c, name='attention_norm')(x_BTD)
    y_BTD, cache = Attention(c, self.kernel, name='attention')(
        norm_BTD, cache, layer, prefixes, is_global, inputs, adapter_ids_BT)
    if c.sandwich_norm:
      y_BTD = Norm(c, name='attention_out_norm')(y_BTD)
    y_BTD = self._after_attention(y_BTD)
    if c.parallel_block:
      x_BTD = x_BTD + dropout(y_BTD + self._after_mlp(mlp(norm_BTD, adapter_ids_BT), x_BTD + y_BTD))
    else:
      x_BTD = x_BTD + dropout(y_BTD)
      y_BTD = mlp(Norm(c, name='mlp_norm')(x_BTD), adapter_ids_BT)
      if c.sandwich_norm:
        y_BTD = Norm(c, name='mlp_out_norm')(y_BTD)
      x_BTD = x_BTD + dropout(self._after_mlp(y_BTD, x_BTD))
    return (constrain(x_BTD, 'batch', None, None), cache), None

  def _after_attention(self, y_BTD: jax.Array) -> jax.Array:
    """Returns the output of attention, with that of a bottleneck adapter after it."""
    adapter = self.config.adapter
    if not (isinstance(adapter, BottleneckConfig) and adapter.placement == 'houlsby'):
      return y_BTD
    return y_BTD + Bottleneck(self.config, adapter, name='attention_adapter')(y_BTD)

  def _after_mlp(self, y_BTD: jax.Array, x_BTD: jax.Array) -> jax.Array:
    """Returns the MLP's output, with that of a bottleneck adapter; `x_BTD` is what it is added to.
    """
    adapter = self.config.adapter
    if not isinstance(adapter, BottleneckConfig):
      return y_BTD
    bottleneck = Bottleneck(self.config, adapter, name='mlp_adapter')
    return y_BTD + bottleneck(y_BTD if adapter.placement == 'houlsby' else x_BTD + y_BTD)
