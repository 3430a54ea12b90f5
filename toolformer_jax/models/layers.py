"""The parts of a block: contractions with adapters, norms, rotary embeddings."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from toolformer_jax.models.config import DecoderConfig

PRODUCT = 'product'  # the name of what a backward pass keeps, by which `save_only_these_names` asks


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def contract(equation: str, dtype: str, left: jax.Array, right: jax.Array) -> jax.Array:
  """Returns an einsum of two operands in `dtype`; each letter is in two or three of its terms.

  The gradient of `right` is a product of `left` and the incoming gradient, the smaller one first
  (before they are split over devices): on a CPU, XLA transposes the first one, element by element,
  together with whatever it can be recomputed from. Autodiff puts the incoming gradient first,
  however large: 5 times the time of a whole layer's backward pass.
  """
  terms, out = equation.split('->')
  first, second = terms.split(',')
  shared = ''.join(letter for letter in first if letter in second and letter not in out)
  if len(shared) > 1 and shared in second:
    # As one dimension: of two XLA chooses the order, and may transpose a kernel at every use.
    left = _joined(left, first.index(shared), len(shared))
    right = _joined(right, second.index(shared), len(shared))
    equation = equation.replace(shared, shared[0])
  return jnp.einsum(equation, left, right, preferred_element_type=dtype)


def _joined(x: jax.Array, at: int, count: int) -> jax.Array:
  """Returns `x` with `count` of its dimensions, from `at` on, made one."""
  return x.reshape(*x.shape[:at], -1, *x.shape[at + count:])


def _contract_forward(equation, dtype, left, right):
  out = contract(equation, dtype, left.value, right.value)
  # What is frozen has no gradient, and then the other operand need not be kept.
  return out, (left.value if right.perturbed else None, right.value if left.perturbed else None)


def _contract_backward(equation, dtype, operands, gradient):
  left, right = operands
  terms, out = equation.split('->')
  first, second = terms.split(',')
  to_left = to_right = None
  if right is not None:
    to_left = jnp.einsum(f'{out},{second}->{first}', gradient, right).astype(right.dtype)
  if left is not None:
    (small, x), (large, y) = sorted([(first, left), (out, gradient)], key=lambda pair: pair[1].size)
    # The order in which a product of the two comes out. Asked for another one, XLA exchanges them
    # to save the transposition of the result; the barrier keeps it from that.
    plain = ''.join(sorted(second, key=lambda letter: (letter not in small, letter not in large)))
    to_right = jnp.einsum(f'{small},{large}->{plain}', x, y).astype(left.dtype)
    if plain != second:
      to_right = jnp.einsum(f'{plain}->{second}', jax.lax.optimization_barrier(to_right))
  return to_left, to_right


contract.defvjp(_contract_forward, _contract_backward, symbolic_zeros=True)


def _named(init: nn.initializers.Initializer, axes: Sequence[str | None]):
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
    kernel = self.param('kernel', _named(nn.initializers.normal(0.02), self.axes), self.shape,
                        jnp.float32)
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.config.dtype)
    y = contract(self.equation, self.config.dtype, x, kernel)
    if self.config.lora_rank:
      y = y + self._adapter(x)
    y = checkpoint_name(y, PRODUCT)
    if self.bias:
      free = [i for i, letter in enumerate(self._letters[1]) if letter not in self._letters[0]]
      bias = self.param('bias', _named(nn.initializers.zeros, [self.axes[i] for i in free]),
                        [self.shape[i] for i in free], jnp.float32)
      y = y + bias.astype(y.dtype)
    return y

  @property
  def _letters(self) -> list[str]:
    return self.equation.split('->')[0].split(',')

  def _adapter(self, x: jax.Array) -> jax.Array:
    """Returns the adapter's share of the output, zero before any training."""
    left, right = self._letters
    inside = [i for i, letter in enumerate(right) if letter in left]
    outside = [i for i, letter in enumerate(right) if letter not in left]
    rank, names = self.config.lora_rank, lambda dims: ''.join(right[i] for i in dims)
    def variable(name, init, dims, place):
      shape, axes = [self.shape[i] for i in dims], [self.axes[i] for i in dims]
      shape.insert(place, rank)
      axes.insert(place, None)
      boxed = lambda: _named(init, axes)(self.make_rng('params'), shape, jnp.float32)  # noqa: E731
      return nn.unbox(self.variable('lora', name, boxed).value).astype(x.dtype)
    down = variable('a', nn.initializers.normal(0.02), inside, len(inside))
    up = variable('b', nn.initializers.zeros, outside, 0)
    rows = ''.join(letter for letter in left if letter not in names(inside))
    low = checkpoint_name(
        contract(f'{left},{names(inside)}r->{rows}r', self.config.dtype, x, down), PRODUCT)
    scale = self.config.lora_alpha / rank
    out = self.equation.split('->')[1]
    y = contract(f'{rows}r,r{names(outside)}->{out}', 'float32', low, up)
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
    # The scale is small: splitting it would cost a gather for nothing.
    size = [x_BTD.shape[-1]]
    offset = self.config.norm_offset
    init = nn.initializers.zeros if offset else nn.initializers.ones
    wide = wide * (offset + self.param('scale', _named(init, [None]), size, jnp.float32))
    if self.config.norm == 'layer':
      wide = wide + self.param('bias', _named(nn.initializers.zeros, [None]), size, jnp.float32)
    return wide.astype(self.config.dtype)


def rotary_angles(positions_BT: jax.Array, config: DecoderConfig) -> tuple[jax.Array, jax.Array]:
  """Returns sine and cosine of each position and frequency, [B, T, rotary_dim / 2], float32."""
  angle = positions_BT[..., None].astype(jnp.float32) * rotary_frequencies(config)
  return jnp.sin(angle), jnp.cos(angle)


def rotary_frequencies(config: DecoderConfig) -> jax.Array:
  """Returns by how much each pair of dimensions turns a position, [rotary_dim / 2], float32."""
  c = config
  exponent = jnp.arange(0, c.rotary_dim, 2, dtype=jnp.float32) / c.rotary_dim
  frequency = c.rotary_base**-exponent
  turns = c.rotary_original * frequency / (2 * jnp.pi)  # within what was seen in pretraining
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
