"""Parts of a block: matrix products with adapters, and norms."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.ops import MATMUL_OUTPUT, einsum

_NORMAL = nn.initializers.normal(0.02)


def _partitioned(init: nn.initializers.Initializer, axes: Sequence[str | None]
                 ) -> nn.initializers.Initializer:
  """Returns an initializer whose arrays carry the names of their logical axes."""
  return nn.with_logical_partitioning(init, tuple(axes))


class Einsum(nn.Module):
  """An einsum of the input with a kernel, plus an optional bias and low-rank adapter.

  Attributes:
    equation: such as 'btd,dnh->btnh'; its second operand is the kernel.
    shape: shape of the kernel.
    axes: logical axis of each dimension of the kernel.
    use_bias: whether a bias is added; it has the kernel's dimensions that are not contracted.
    config: dtype of the computation, and the adapter's rank and alpha.
  """

  equation: str
  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  use_bias: bool
  config: DecoderConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param('kernel', _partitioned(_NORMAL, self.axes), self.shape, jnp.float32)
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.config.dtype)
    y = einsum(self.equation, self.config.dtype, x, kernel)
    if self.config.lora_rank:
      y = y + self._lora(x)
    y = checkpoint_name(y, MATMUL_OUTPUT)
    if self.use_bias:
      _, output_dims = self._kernel_dims()
      axes, shape = [self.axes[i] for i in output_dims], [self.shape[i] for i in output_dims]
      bias = self.param('bias', _partitioned(nn.initializers.zeros, axes), shape, jnp.float32)
      y = y + bias.astype(y.dtype)
    return y

  def _kernel_dims(self) -> tuple[list[int], list[int]]:
    """Returns the kernel's dimensions that are contracted with the input, and the others."""
    inputs, kernel = self.equation.split('->')[0].split(',')
    return ([i for i, letter in enumerate(kernel) if letter in inputs],
            [i for i, letter in enumerate(kernel) if letter not in inputs])

  def _lora(self, x: jax.Array) -> jax.Array:
    """Returns x A B * alpha / rank (Hu et al. 2021); zero before training, as B is zero."""
    rank, (input_dims, output_dims) = self.config.lora_rank, self._kernel_dims()
    a = self._lora_variable('a', _NORMAL, input_dims, len(input_dims)).astype(x.dtype)
    b = self._lora_variable('b', nn.initializers.zeros, output_dims, 0).astype(x.dtype)
    terms, out = self.equation.split('->')
    inputs, kernel = terms.split(',')
    contracted = ''.join(kernel[i] for i in input_dims)
    free = ''.join(kernel[i] for i in output_dims)
    rows = ''.join(letter for letter in inputs if letter not in contracted)
    low_rank = checkpoint_name(
        einsum(f'{inputs},{contracted}r->{rows}r', self.config.dtype, x, a), MATMUL_OUTPUT)
    y = einsum(f'{rows}r,r{free}->{out}', 'float32', low_rank, b)
    return (self.config.lora_alpha / rank * y).astype(x.dtype)

  def _lora_variable(self, name: str, init: nn.initializers.Initializer, dims: Sequence[int],
                     rank_dim: int) -> jax.Array:
    """Returns a factor of the adapter, with dimensions of the kernel and the rank at `rank_dim`."""
    shape, axes = [self.shape[i] for i in dims], [self.axes[i] for i in dims]
    shape.insert(rank_dim, self.config.lora_rank)
    axes.insert(rank_dim, None)
    def make() -> Any:
      return _partitioned(init, axes)(self.make_rng('params'), shape, jnp.float32)
    return nn.unbox(self.variable('lora', name, make).value)


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
    return y.astype(c.dtype)
