"""The parts of a block: contractions with adapters, norms, rotary embeddings."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.ops import MATMUL_OUTPUT, einsum


def _with_axes(init: nn.initializers.Initializer, axes: Sequence[str | None]
               ) -> nn.initializers.Initializer:
  return nn.with_logical_partitioning(init, tuple(axes))


class Einsum(nn.Module):
  """A contraction of the input with a kernel, with an optional bias and low-rank adapter.

  Attributes:
    equation: an einsum such as 'btd,dnh->btnh'; its second operand is the kernel.
    shape: of the kernel.
    axes: logical axis of each dimension of the kernel.
    bias: whether to add one along the kernel's dimensions that are not contracted.
    config: dtype, and rank and scale of the adapter (Hu et al. 2021).
  """

  equation: str
  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  bias: bool
  config: DecoderConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param('kernel', _with_axes(nn.initializers.normal(0.02), self.axes), self.shape,
                        jnp.float32)
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.config.dtype)
    y = einsum(self.equation, self.config.dtype, x, kernel)
    if self.config.lora_rank:
      y = y + self._adapter(x)
    y = checkpoint_name(y, MATMUL_OUTPUT)
    if self.bias:
      free = [i for i, letter in enumerate(self._letters[1]) if letter not in self._letters[0]]
      bias = self.param('bias', _with_axes(nn.initializers.zeros, [self.axes[i] for i in free]),
                        [self.shape[i] for i in free], jnp.float32)
      y = y + bias.astype(y.dtype)
    return y

  @property
  def _letters(self) -> list[str]:
    return self.equation.split('->')[0].split(',')

  def _adapter(self, x: jax.Array) -> jax.Array:
    """Returns the output of the adapter, zero before any training."""
    left, right = self._letters
    inside = [i for i, letter in enumerate(right) if letter in left]
    outside = [i for i, letter in enumerate(right) if letter not in left]
    rank, names = self.config.lora_rank, lambda dims: ''.join(right[i] for i in dims)
    def variable(name, init, dims, place):
      shape, axes = [self.shape[i] for i in dims], [self.axes[i] for i in dims]
      shape.insert(place, rank)
      axes.insert(place, None)
      boxed = lambda: _with_axes(init, axes)(self.make_rng('params'), shape, jnp.float32)  # noqa: E731
      return nn.unbox(self.variable('lora', name, boxed).value).astype(x.dtype)
    down = variable('a', nn.initializers.normal(0.02), inside, len(inside))
    up = variable('b', nn.initializers.zeros, outside, 0)
    rows = ''.join(letter for letter in left if letter not in names(inside))
    low = checkpoint_name(
        einsum(f'{left},{names(inside)}r->{rows}r', self.config.dtype, x, down), MATMUL_OUTPUT)
    scale = self.config.lora_alpha / rank
    out = self.equation.split('->')[1]
    y = einsum(f'{rows}r,r{names(outside)}->{out}', 'float32', low, up)
    return (scale * y).astype(x.dtype)


class Norm(nn.Module):
  """Layer norm or root-mean-square norm over the last axis, in float32."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    wide = x_BTD.astype(jnp.float32)
    if self.config.norm == 'layer':
      wide = wide - wide.mean(-1, keepdims=True)
    wide = wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + self.config.norm_eps)
    # The scale is too small to be worth splitting.
    size = [x_BTD.shape[-1]]
    offset = self.config.norm_offset
    init = nn.initializers.zeros if offset else nn.initializers.ones
    wide = wide * (offset + self.param('scale', _with_axes(init, [None]), size, jnp.float32))
    if self.config.norm == 'layer':
      wide = wide + self.param('bias', _with_axes(nn.initializers.zeros, [None]), size, jnp.float32)
    return wide.astype(self.config.dtype)


def rotary_angles(positions_BT: jax.Array, config: DecoderConfig) -> tuple[jax.Array, jax.Array]:
  """Returns sine and cosine of each position and frequency, [B, T, rotary_dim / 2], float32."""
  angle = positions_BT[..., None].astype(jnp.float32) * rotary_frequencies(config)
  return jnp.sin(angle), jnp.cos(angle)


def rotary_frequencies(config: DecoderConfig) -> jax.Array:
  """Returns by what angle each pair of dimensions turns per position, [rotary_dim / 2], float32."""
  c = config
  exponent = jnp.arange(0, c.rotary_dim, 2, dtype=jnp.float32) / c.rotary_dim
  frequency = c.rotary_base**-exponent
  turns = c.rotary_original * frequency / (2 * jnp.pi)  # within the pretraining length
  kept = jnp.clip((turns - c.rotary_low) / (c.rotary_high - c.rotary_low), 0, 1)
  return frequency * ((1 - kept) / c.rotary_factor + kept)


def rotate(
    x_BTNH: jax.Array, angles: tuple[jax.Array, jax.Array], config: DecoderConfig
) -> jax.Array:
  """Turns the first `rotary_dim` dimensions of each head by its angles (Su et al. 2021)."""
  sin, cos = (angle[:, :, None].astype(x_BTNH.dtype) for angle in angles)
  turning, rest = jnp.split(x_BTNH, [config.rotary_dim], -1)
  interleaved = config.positions == 'rotary_interleaved'
  if interleaved:
    first, second = turning[..., ::2], turning[..., 1::2]
  else:
    first, second = jnp.split(turning, 2, -1)
  turned = [first * cos - second * sin, second * cos + first * sin]
  if interleaved:
    turned = [jnp.stack(turned, -1).reshape(turning.shape)]
  return jnp.concatenate([*turned, rest], -1)
