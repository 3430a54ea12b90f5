"""Parts of a block: matrix products with adapters, norms, and dropout."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  Ia3Config,
  LoraConfig,
  LoraStackConfig,
  is_target,
)
from toolformer_jax.models.adapters import Contraction, adapter_variable, ia3_scale, low_rank
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.int4 import GROUP, packed_after, unpack_rows
from toolformer_jax.models.int8 import KERNEL_SCALE, int8_einsum
from toolformer_jax.models.ops import weight_einsum
from toolformer_jax.models.remat import MATMUL_OUTPUT
from toolformer_jax.models.weight_groups import has_groups

_NORMAL = nn.initializers.normal(0.02)


def _partitioned(init: nn.initializers.Initializer, axes: Sequence[str | None]
                 ) -> nn.initializers.Initializer:
  """Returns an initializer whose arrays carry the names of their logical axes."""
  return nn.with_logical_partitioning(init, tuple(axes))


class Dropout(nn.Module):
  """Dropout that is active only where `apply` gets a key for it: rngs={'dropout': key}."""

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return nn.Dropout(self.rate, deterministic=not self.has_rng('dropout'))(x)


class Einsum(nn.Module):
  """An einsum of the input with a kernel, plus an optional bias and adapter.

  Attributes:
    equation: such as 'btd,dnh->btnh'; its second operand is the kernel.
    shape: shape of the kernel.
    axes: logical axis of each dimension of the kernel.
    use_bias: whether a bias is added; it has the kernel's dimensions that are not contracted.
    config: dtype of the computation, and the adapter, which finds the module by its `name`.
  """

  equation: str
  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  use_bias: bool
  config: DecoderConfig

  @nn.compact
  def __call__(self, x: jax.Array, adapter_ids_BT: jax.Array | None = None) -> jax.Array:
    c, module = self.config, str(self.name)
    adapter = c.adapter if is_target(c.adapter, module) else None
    contraction = Contraction(self.equation, self.shape, self.axes)
    x, = nn.dtypes.promote_dtype(x, dtype=c.activation_dtype)
    scale = None
    if isinstance(adapter, Ia3Config):
      scale = ia3_scale(adapter, module, contraction, self._adapter_variable).astype(x.dtype)
      if module in adapter.feedforward_modules:
        x, scale = x * scale, None
    y = self._product(contraction, x)
    if isinstance(adapter, LoraConfig | AdaLoraConfig):
      x = Dropout(adapter.dropout, name='adapter_dropout')(x)
      y = y + low_rank(adapter, module, contraction, self._adapter_variable, x, c)
    elif isinstance(adapter, LoraStackConfig):
      y = y + low_rank(adapter, module, contraction, self._adapter_variable, x, c, adapter_ids_BT)
    y = checkpoint_name(y, MATMUL_OUTPUT)
    if self.use_bias:
      shape, axes = contraction.sizes(contraction.output_dims)
      bias = self.param('bias', _partitioned(nn.initializers.zeros, axes), shape, jnp.float32)
      y = y + bias.astype(y.dtype)
    return y if scale is None else y * scale

  def _product(self, contraction: Contraction, x: jax.Array) -> jax.Array:
    """Returns the einsum with the kernel, which in int8 and int4 has codes and scales."""
    c = self.config
    (inputs, in_axes), (outputs, out_axes) = map(
        contraction.sizes, (contraction.input_dims, contraction.output_dims))
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    if c.dtype == 'int8':
      codes = self.param('kernel', _partitioned(zeros, self.axes), self.shape, jnp.int8)
      scales = self.param(KERNEL_SCALE, _partitioned(ones, out_axes), outputs, jnp.float32)
      return int8_einsum(self.equation, x, codes, scales)
    if c.dtype == 'int4' and has_groups(size := math.prod(inputs), GROUP):
      axes = [in_axes[0], *out_axes]
      packed = self.param('kernel', _partitioned(zeros, axes), [size // 2, *outputs], jnp.uint8)
      scales = self.param(KERNEL_SCALE, _partitioned(ones, axes), [size // GROUP, *outputs],
                          jnp.float16)
      kernel = unpack_rows(packed_after(x, packed), scales)
      return weight_einsum(self.equation, c, x, kernel.reshape(self.shape))
    kernel = self.param('kernel', _partitioned(_NORMAL, self.axes), self.shape, jnp.float32)
    return weight_einsum(self.equation, c, x, kernel)

  def _adapter_variable(self, name: str, init: nn.initializers.Initializer, shape: Sequence[int],
                        axes: Sequence[str | None]) -> jax.Array:
    return adapter_variable(self, name, init, shape, axes)


class Norm(nn.Module):
  """Layer norm or root-mean-square norm over the last axis, in float32."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, size = self.config, [x.shape[-1]]
    y = x.astype(jnp.float32)
    if c.norm == 'layer':
      y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + c.norm_eps)
    # Scale and bias are too small to be worth sharding.
    init = nn.initializers.zeros if c.norm_offset else nn.initializers.ones
    y = y * (c.norm_offset + self.param('scale', _partitioned(init, [None]), size, jnp.float32))
    if c.norm == 'layer':
      y = y + self.param('bias', _partitioned(nn.initializers.zeros, [None]), size, jnp.float32)
    return y.astype(c.activation_dtype)
