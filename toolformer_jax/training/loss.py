"""The language-model loss of packed rows."""

from typing import Any

import jax
import jax.numpy as jnp

from toolformer_jax.models.decoder import Decoder
from toolformer_jax.training.packing import PackedRows


def next_token_loss(
    decoder: Decoder, variables: dict[str, Any], rows: PackedRows
) -> tuple[jax.Array, jax.Array]:
  """Returns the weighted sum of the cross-entropies of `rows` in nats, and the sum of weights.

  Two float32 scalars, not their quotient: over several batches the mean is a quotient of sums.
  """
  logits_RTV, _ = decoder.apply(
      variables, rows.tokens_RT, positions_BT=rows.positions_RT, segments_BT=rows.segments_RT)
  logits_RTV = logits_RTV.astype(jnp.float32)
  target_RT1 = jnp.take_along_axis(logits_RTV, rows.targets_RT[..., None], -1)
  nll_RT = jax.nn.logsumexp(logits_RTV, -1) - target_RT1[..., 0]
  return (nll_RT * rows.weights_RT).sum(), rows.weights_RT.sum()
