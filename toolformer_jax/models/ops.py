"""Operations with a gradient or a form of their own, each because of how XLA compiles it."""

import functools

import jax
import jax.numpy as jnp

from toolformer_jax.sharding import constrain

# The name that `jax.checkpoint_policies.save_only_these_names` keeps for the backward pass.
MATMUL_OUTPUT = 'matmul_output'


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def einsum(equation: str, dtype: str, left: jax.Array, right: jax.Array) -> jax.Array:
  """Returns an einsum of two operands in `dtype`; each letter is in two or three of its terms.

  Why it has its own gradient: on a CPU, XLA transposes the first operand of a product element by
  element, together with everything that it recomputes for it. Autodiff puts the incoming gradient
  first, however large it is: measured, that takes 5 times as long as the whole backward pass of a
  layer. Here the smaller of the two operands comes first (by their sizes before they are split over
  devices).

  Args:
    equation: such as 'btd,dnh->btnh'.
    dtype: of the result.
    left, right: the operands.
  """
  terms, out = equation.split('->')
  first, second = terms.split(',')
  shared = ''.join(letter for letter in first if letter in second and letter not in out)
  if len(shared) > 1 and shared in second:
    # As one dimension: of two, XLA chooses the order, and may transpose a kernel at every use.
    left = _merged(left, first.index(shared), len(shared))
    right = _merged(right, second.index(shared), len(shared))
    equation = equation.replace(shared, shared[0])
  return jnp.einsum(equation, left, right, preferred_element_type=dtype)


def _merged(x: jax.Array, at: int, count: int) -> jax.Array:
  """Returns `x` with `count` dimensions, from `at` on, merged into one."""
  return x.reshape(*x.shape[:at], -1, *x.shape[at + count:])


def _einsum_forward(equation, dtype, left, right):
  out = einsum(equation, dtype, left.value, right.value)
  # If an operand is frozen, the other one is not needed in the backward pass.
  return out, (left.value if right.perturbed else None, right.value if left.perturbed else None)


def _einsum_backward(equation, dtype, operands, gradient):
  left, right = operands
  terms, out = equation.split('->')
  first, second = terms.split(',')
  to_left = to_right = None
  if right is not None:
    to_left = jnp.einsum(f'{out},{second}->{first}', gradient, right).astype(right.dtype)
  if left is not None:
    (small, x), (large, y) = sorted([(first, left), (out, gradient)], key=lambda pair: pair[1].size)
    # The order of dimensions that the product has by itself. Asked for another one, XLA exchanges
    # the operands to save a transposition of the result; the barrier prevents that.
    plain = ''.join(sorted(second, key=lambda letter: (letter not in small, letter not in large)))
    to_right = jnp.einsum(f'{small},{large}->{plain}', x, y).astype(left.dtype)
    if plain != second:
      to_right = jnp.einsum(f'{plain}->{second}', jax.lax.optimization_barrier(to_right))
  return to_left, to_right


einsum.defvjp(_einsum_forward, _einsum_backward, symbolic_zeros=True)


@jax.custom_vjp
def split_by_rows(embedding_VD: jax.Array) -> jax.Array:
  """Returns the embedding table [V, D] split by rows alone; its gradient is split as the table is.

  Why: a gather from a table that is split over two mesh axes makes XLA rematerialise the table on
  every device (8 warnings of involuntary rematerialisation on 8 devices). The transpose of a plain
  constraint would leave the gradient whole along `fsdp`, and sum it up on every device.
  """
  return constrain(embedding_VD, 'vocab', None)


split_by_rows.defvjp(lambda embedding_VD: (split_by_rows(embedding_VD), None),
                   lambda _, gradient_VD: (constrain(gradient_VD, 'vocab', 'embed'),))


def target_logits(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
  """Returns the logit of one token at each position, [B, T].

  Why it is a sum with one term and not a gather: the vocabulary may be split over devices, and a
  gather would collect all logits on each of them.
  """
  hit_BTV = jnp.arange(logits_BTV.shape[-1]) == targets_BT[..., None]
  return jnp.where(hit_BTV, logits_BTV, 0).sum(-1)
