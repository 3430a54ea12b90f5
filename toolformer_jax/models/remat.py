"""What of a block is kept for the backward pass; the rest is recomputed (rematerialization)."""

from collections.abc import Callable
from typing import Any, Literal

from jax import checkpoint_policies as policies

# The names that `jax.ad_checkpoint.checkpoint_name` gives to the outputs of matrix products, and
# of the projections to queries, keys and values.
MATMUL_OUTPUT = 'matmul_output'
QKV_PROJ = 'qkv_proj'

# As T5X and MaxText call them: 'minimal' keeps the outputs of all matrix products, 'save_qkv_proj'
# queries, keys and values, 'full' the input of the block alone.
RematPolicy = Literal['minimal', 'save_qkv_proj', 'full']


def checkpoint_policy(policy: RematPolicy) -> Callable[..., Any]:
  """Returns the policy for `jax.checkpoint`."""
  names = {'minimal': [MATMUL_OUTPUT], 'save_qkv_proj': [QKV_PROJ], 'full': []}
  return policies.save_only_these_names(*names[policy])
