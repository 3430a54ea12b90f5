"""What of a block is kept for the backward pass; the rest is recomputed (rematerialization)."""

from collections.abc import Callable
from typing import Any

from jax import checkpoint_policies as policies

from toolformer_jax.models.config import RematPolicy

# The names that `jax.ad_checkpoint.checkpoint_name` gives to the outputs of matrix products, and
# of the projections to queries, keys and values.
MATMUL_OUTPUT = 'matmul_output'
QKV_PROJ = 'qkv_proj'


def checkpoint_policy(policy: RematPolicy) -> Callable[..., Any]:
  """Returns the policy for `jax.checkpoint`."""
  names = {'minimal': [MATMUL_OUTPUT], 'save_qkv_proj': [QKV_PROJ], 'full': []}
  return policies.save_only_these_names(*names[policy])
