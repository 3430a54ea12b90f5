"""What each token sees: which slots of the keys before it, and at which angles.

The one place that knows about segments, prefixes and windows; attention is told masks.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.kv_cache import KVCache, Prefix, UnrolledCache
from toolformer_jax.models.layers import rotary_angles


class Sight(NamedTuple):
  """Where tokens stand and what they see.

  With a window, angles and masks are twice as many: [0] of each for local layers, [1] for global.

  Attributes:
    angles: sine and cosine of rotary embeddings, [B, T, rotary_dim / 2]; None without.
    masks: which slots [B, T, S] of each source of keys are seen; none where a kernel attends.
    segments_BT: number of each token's text in its row.
  """

  angles: tuple[jax.Array, jax.Array] | None
  masks: Sequence[jax.Array]
  segments_BT: jax.Array | None

  def of(self, kind: jax.Array) -> 'Sight':
    """Returns what layers of a kind see, 0 for local ones and 1 for global ones."""
    angles, masks = jax.tree.map(lambda x: x[kind], (self.angles, self.masks))
    return Sight(angles, masks, self.segments_BT)


def places(B: int, T: int, cache: KVCache | UnrolledCache | None,
           prefixes: Sequence[Prefix]) -> jax.Array:
  """Returns how many tokens in prefixes, cache and row come before each new token, [B, T]."""
  start_B = sum((prefix.limit_B for prefix in prefixes), jnp.zeros(B, jnp.int32))
  start_B = start_B if cache is None else start_B + cache.length_B
  return start_B[:, None] + jnp.arange(T)


def look(
    config: DecoderConfig, positions_BT: jax.Array, places_BT: jax.Array,
    segments_BT: jax.Array | None, cache: KVCache | UnrolledCache | None,
    prefixes: Sequence[Prefix], in_memory: bool,
) -> Sight:
  """Returns what the tokens of a batch see.

  Args:
    config: of the decoder.
    positions_BT: by which rotary embeddings turn.
    places_BT: see `places`.
    segments_BT, cache, prefixes: as the decoder has them.
    in_memory: whether masks are wanted; a kernel needs none.
  """
  B, T = positions_BT.shape
  masks = []
  if in_memory:
    masks = [*_prefix_masks(prefixes, B, T), _own_mask(cache, segments_BT, B, T)]
  angles = rotary_angles(positions_BT, config) if config.rotary_dim else None
  if config.window:
    masks = [jnp.stack([mask_BTS & near_BTS, mask_BTS]) for mask_BTS, near_BTS in
             zip(masks, _near(masks, places_BT, prefixes, config.window), strict=True)]
    local = config.replace(
        rotary_base=config.local_rotary_base, rotary_factor=1.0, rotary_original=0)
    angles = jax.tree.map(lambda *kinds: jnp.stack(kinds), rotary_angles(positions_BT, local),
                          angles)
  return Sight(angles, masks, segments_BT)


def _prefix_masks(prefixes: Sequence[Prefix], B: int, T: int) -> list[jax.Array]:
  """Returns for each prefix which of its slots each token sees, [B, T, S]."""
  return [
      jnp.broadcast_to((jnp.arange(prefix.slots) < prefix.limit_B[:, None])[:, None],
                       (B, T, prefix.slots))
      for prefix in prefixes]


def _own_mask(cache: KVCache | UnrolledCache | None, segments_BT, B: int, T: int) -> jax.Array:
  """Returns which of its row's own slots (without a cache: tokens) each token sees, [B, T, S]."""
  if cache is None:
    mask_BTS = jnp.broadcast_to(jnp.tril(jnp.ones((T, T), bool)), (B, T, T))
  else:
    slots_S = jnp.arange(cache.slots)
    mask_BTS = slots_S <= (cache.length_B[:, None] + jnp.arange(T))[..., None]
  if segments_BT is None:
    return mask_BTS
  return mask_BTS & (segments_BT[:, :, None] == segments_BT[:, None])


def _near(masks: Sequence[jax.Array], places_BT: jax.Array, prefixes: Sequence[Prefix],
          window: int) -> Iterator[jax.Array]:
  """Yields for each of `masks` which of its slots lie within `window`, [B, T, S]."""
  begins = itertools.accumulate((prefix.limit_B for prefix in prefixes), initial=jnp.zeros(1, int))
  for mask_BTS, begin_B in zip(masks, begins, strict=False):
    places_BS = begin_B[:, None] + jnp.arange(mask_BTS.shape[2])
    yield places_BT[..., None] - places_BS[:, None] < window
