"""Operations with a hand-written gradient or form, as XLA compiles the plain version poorly."""

import functools

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal

from toolformer_jax.models.bfloat16 import from_bits
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.sharding import constrain


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 4))
def einsum(equation: str, dtype: str, left: jax.Array, right: jax.Array,
           gradient_dtype: str | None = None) -> jax.Array:
  """Returns the einsum of two arrays.

  It has a gradient of its own because of XLA on CPUs, which transposes the first operand of a
  matrix product element by element, together with everything that it recomputes for it. Autodiff
  puts the incoming gradient first, however large it is. That was measured to take 5 times as long
  as the whole backward pass of a layer. Here the smaller operand comes first, by the sizes before
  sharding.

  Args:
    equation: such as 'btd,dnh->btnh'. Each letter occurs in two or three of the terms.
    dtype: dtype of the result.
    left: the first operand, in general the activations.
    right: the second operand, in general the weights.
    gradient_dtype: what the incoming gradient is rounded to; by default it is not. The products of
      the backward pass then have results of `dtype` as well, before these are rounded.
  """
  terms, out = equation.split('->')
  first, second = terms.split(',')
  contracted = ''.join(letter for letter in first if letter in second and letter not in out)
  if len(contracted) > 1 and contracted in second:
    # Merged into one dimension. XLA chooses the order of two, and then may transpose the weights
    # at every use.
    left = _merge_dimensions(left, first.index(contracted), len(contracted))
    right = _merge_dimensions(right, second.index(contracted), len(contracted))
    equation = equation.replace(contracted, contracted[0])
  return jnp.einsum(equation, left, right, preferred_element_type=dtype)


def weight_einsum(equation: str, config: DecoderConfig, x: jax.Array, weights: jax.Array
                  ) -> jax.Array:
  """Returns the einsum of activations with weights, in the dtype of activations.

  It and its gradients are products of the dtype that `config` has for products. XLA on CPUs has
  fast products of bfloat16 where the result is float32; that of one row would take three times as
  long as that of two.

  Args:
    equation: see `einsum`; rows and tokens come first.
    config: of the decoder.
    x: activations.
    weights: the weights; those of stacked layers on CPUs as `bfloat16.as_bits`.
  """
  dtype, weights = config.product_dtype, from_bits(weights)
  if dtype != config.activation_dtype and x.shape[:2] == (1, 1):
    x = jnp.pad(x, [(0, 0), (0, 1), *[(0, 0)] * (x.ndim - 2)])
    return weight_einsum(equation, config, x, weights)[:, :1]
  return einsum(equation, config.activation_dtype, x.astype(dtype), weights.astype(dtype), dtype)


def _merge_dimensions(x: jax.Array, start: int, count: int) -> jax.Array:
  """Returns `x` with `count` dimensions, beginning at `start`, merged into one."""
  return x.reshape(*x.shape[:start], -1, *x.shape[start + count:])


def _einsum_forward(equation: str, dtype: str, left: CustomVJPPrimal, right: CustomVJPPrimal,
                    gradient_dtype: str | None
                    ) -> tuple[jax.Array, tuple[jax.Array | None, jax.Array | None]]:
  out = einsum(equation, dtype, left.value, right.value, gradient_dtype)
  # An operand is only kept for the gradient of the other one, which may be frozen.
  return out, (left.value if right.perturbed else None, right.value if left.perturbed else None)


def _einsum_backward(equation: str, dtype: str, gradient_dtype: str | None,
                     operands: tuple[jax.Array | None, jax.Array | None], gradient: jax.Array
                     ) -> tuple[jax.Array | None, jax.Array | None]:
  left, right = operands
  gradient = gradient.astype(gradient_dtype or gradient.dtype)
  product = functools.partial(jnp.einsum, preferred_element_type=dtype if gradient_dtype else None)
  terms, out = equation.split('->')
  first, second = terms.split(',')
  left_gradient = right_gradient = None
  if right is not None:
    left_gradient = product(f'{out},{second}->{first}', gradient, right).astype(right.dtype)
  if left is not None:
    (small, x), (large, y) = sorted([(first, left), (out, gradient)], key=lambda pair: pair[1].size)
    # The product is asked for in its natural order of dimensions and transposed afterwards. Asked
    # for another order, XLA swaps the operands to save the transposition; on CPUs the barrier
    # prevents it. On TPUs it would cost a copy of the gradients of all layers.
    natural = ''.join(sorted(second, key=lambda letter: (letter not in small, letter not in large)))
    right_gradient = product(f'{small},{large}->{natural}', x, y).astype(left.dtype)
    if natural != second:
      right_gradient = jax.lax.platform_dependent(
          right_gradient, cpu=jax.lax.optimization_barrier, default=lambda x: x)
      right_gradient = jnp.einsum(f'{natural}->{second}', right_gradient)
  return left_gradient, right_gradient


einsum.defvjp(_einsum_forward, _einsum_backward, symbolic_zeros=True)


@jax.custom_vjp
def shard_rows_only(embedding_VD: jax.Array) -> jax.Array:
  """Returns the embedding table [V, D] sharded along its rows only, for a lookup.

  A gather from a table that is sharded along both dimensions makes XLA rematerialize the whole
  table on every device (8 warnings of involuntary full rematerialization on 8 devices). The
  gradient is sharded like the table itself: the transpose of a plain sharding constraint would
  leave it whole along the mesh axis `fsdp`, and all-reduce all of it.
  """
  return constrain(embedding_VD, 'vocab', None)


shard_rows_only.defvjp(lambda embedding_VD: (shard_rows_only(embedding_VD), None),
                       lambda _, gradient_VD: (constrain(gradient_VD, 'vocab', 'embed'),))


def target_logits(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
  """Returns the logit of the target token at each position, [B, T].

  It is a masked sum and not a gather because the vocabulary may be sharded: a gather would collect
  all logits on every device.
  """
  is_target_BTV = jnp.arange(logits_BTV.shape[-1]) == targets_BT[..., None]
  return jnp.where(is_target_BTV, logits_BTV, 0).sum(-1)


def target_log_softmax(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
  """Returns the natural-log probability of the target token at each position, [B, T], float32."""
  logits_BTV = logits_BTV.astype(jnp.float32)
  return target_logits(logits_BTV, targets_BT) - jax.nn.logsumexp(logits_BTV, -1)
