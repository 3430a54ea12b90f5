"""Attention masks and rotary angles, from positions, segments, prefixes and the sliding window."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.kv_cache import KVCache, Prefix
from toolformer_jax.models.rotary import rotary_angles


class AttentionInputs(NamedTuple):
  """What attention needs besides queries, keys and values.

  With a sliding window, angles and masks have a leading dimension of 2: [0] is for local layers,
  [1] for global ones.

  Attributes:
    rotary_angles: sine and cosine, [B, T, rotary_dim / 2]; None without rotary embeddings.
    masks: for each source of keys (the prefixes, then the row itself), which slots each token
      attends to, bool [B, T, S]. Empty where a kernel computes attention.
    segment_ids_BT: the segment of each token, int32; None if a row is one segment.
  """

  rotary_angles: tuple[jax.Array, jax.Array] | None
  masks: Sequence[jax.Array]
  segment_ids_BT: jax.Array | None

  def for_layer(self, is_global: jax.Array) -> 'AttentionInputs':
    """Returns the inputs of a local (0) or global (1) layer."""
    angles, masks = jax.tree.map(lambda x: x[is_global], (self.rotary_angles, self.masks))
    return AttentionInputs(angles, masks, self.segment_ids_BT)


def absolute_positions(B: int, T: int, cache: KVCache | None, prefixes: Sequence[Prefix]
                       ) -> jax.Array:
  """Returns how many tokens of prefixes, cache and row precede each new token, [B, T]."""
  start_B = sum((prefix.limits_B for prefix in prefixes), jnp.zeros(B, jnp.int32))
  start_B = start_B if cache is None else start_B + cache.length_B
  return start_B[:, None] + jnp.arange(T)


def attention_inputs(
    config: DecoderConfig, positions_BT: jax.Array, absolute_BT: jax.Array,
    segment_ids_BT: jax.Array | None, cache: KVCache | None,
    prefixes: Sequence[Prefix], with_masks: bool,
) -> AttentionInputs:
  """Returns the masks and angles of a batch.

  Args:
    config: of the decoder.
    positions_BT: positions for the rotary embeddings.
    absolute_BT: from `absolute_positions`, for the sliding window in the row itself.
    segment_ids_BT, cache, prefixes: arguments of the decoder.
    with_masks: whether masks are needed; kernels make their own.
  """
  B, T = positions_BT.shape
  masks = []
  if with_masks:
    masks = [*_prefix_masks(prefixes, B, T), _own_mask(cache, segment_ids_BT, B, T)]
  angles = rotary_angles(positions_BT, config) if config.rotary_dim else None
  if config.sliding_window:
    windows = _window_masks(masks, absolute_BT, positions_BT, prefixes, config.sliding_window)
    masks = [jnp.stack([mask_BTS & window_BTS, mask_BTS])
             for mask_BTS, window_BTS in zip(masks, windows, strict=True)]
    local = config.replace(
        rotary_base=config.local_rotary_base, rotary_scaling_factor=1.0, rotary_beta_fast=0.0,
        rotary_attention_factor=1.0, rotary_original_positions=0, rotary_divisors=())
    angles = jax.tree.map(lambda *pair: jnp.stack(pair), rotary_angles(positions_BT, local), angles)
  return AttentionInputs(angles, masks, segment_ids_BT)


def _prefix_masks(prefixes: Sequence[Prefix], B: int, T: int) -> list[jax.Array]:
  """Returns for each prefix which of its slots each token attends to, [B, T, S]."""
  return [
      jnp.broadcast_to((jnp.arange(prefix.slots) < prefix.limits_B[:, None])[:, None],
                       (B, T, prefix.slots))
      for prefix in prefixes]


def _own_mask(cache: KVCache | None, segment_ids_BT: jax.Array | None, B: int, T: int) -> jax.Array:
  """Returns which slots (without a cache: tokens) of its row each token attends to, [B, T, S]."""
  if cache is None:
    mask_BTS = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (B, T, T))
  else:
    slots_S = jnp.arange(cache.slots)
    mask_BTS = slots_S <= (cache.length_B[:, None] + jnp.arange(T))[..., None]
  if segment_ids_BT is None:
    return mask_BTS
  return mask_BTS & (segment_ids_BT[:, :, None] == segment_ids_BT[:, None])


def _window_masks(masks: Sequence[jax.Array], absolute_BT: jax.Array, positions_BT: jax.Array,
                  prefixes: Sequence[Prefix], window: int) -> Iterator[jax.Array]:
  """Yields for each of `masks` which of its slots the sliding window contains, [B, T, S].

  The distance to a prefix is that of positions: every segment of a packed row comes after it.
  """
  starts = itertools.accumulate((prefix.limits_B for prefix in prefixes), initial=jnp.zeros(1, int))
  for i, (mask_BTS, start_B) in enumerate(zip(masks, starts, strict=False)):
    absolute_BS = start_B[:, None] + jnp.arange(mask_BTS.shape[2])
    where_BT = positions_BT if i < len(prefixes) else absolute_BT
    yield where_BT[..., None] - absolute_BS[:, None] < window
