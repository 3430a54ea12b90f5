"""Keys and values that later tokens read: a row's own, and those it shares with other rows.

Letters of shapes, here and everywhere: B batch rows, T tokens, S cache slots, L layers, D
embedding, N query heads, K key/value heads, G query heads of one key/value head, H head size, F
MLP, V vocabulary, P rows of a shared prefix, M places where logits are asked for.
"""

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from toolformer_jax import sharding
from toolformer_jax.models.config import DecoderConfig


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=['k_LBKHS', 'v_LBKSH', 'length_B'],
    meta_fields=[],
)
@dataclass(frozen=True)
class KVCache:
  """Keys and values of every layer, and how many slots of each row are in use.

  Slots at and after a row's length are never read, so setting a length back undoes what was
  written since; the slots are overwritten later. Keys lie with their slots last: as they are
  contracted over the head, this is a plain matrix product (3 times faster on a CPU).
  """

  k_LBKHS: jax.Array
  v_LBKSH: jax.Array
  length_B: jax.Array

  @classmethod
  def empty(cls, config: DecoderConfig, rows: int, slots: int) -> 'KVCache':
    """Returns a cache of `rows` rows, all of length 0, with room for `slots` tokens each."""
    def zeros(*sizes):
      shape = (config.layers, rows, config.kv_heads, *sizes)
      return sharding.constrain(
          jnp.zeros(shape, config.dtype), None, 'batch', 'kv_heads', None, None)
    return cls(zeros(config.head_dim, slots), zeros(slots, config.head_dim),
               jnp.zeros(rows, jnp.int32))

  @property
  def slots(self) -> int:
    """How many tokens a row has room for."""
    return self.v_LBKSH.shape[3]

  def with_length(self, length_B: jax.Array) -> 'KVCache':
    """Returns the same slots with other lengths: rolls rows back."""
    return dataclasses.replace(self, length_B=length_B)

  def take(self, rows_B: jax.Array) -> 'KVCache':
    """Returns a copy of the given rows."""
    return KVCache(self.k_LBKHS[:, rows_B], self.v_LBKSH[:, rows_B], self.length_B[rows_B])

  def grow(self, slots: int) -> 'KVCache':
    """Returns the same rows with room for `slots` tokens each."""
    none, more = (0, 0), (0, slots - self.slots)
    k_LBKHS = jnp.pad(self.k_LBKHS, [none, none, none, none, more])
    v_LBKSH = jnp.pad(self.v_LBKSH, [none, none, none, more, none])
    return KVCache(k_LBKHS, v_LBKSH, self.length_B)

  def put(self, rows_B: jax.Array, other: 'KVCache') -> 'KVCache':
    """Returns this cache with `other`'s rows put in places; those out of range are dropped."""
    return KVCache(
        self.k_LBKHS.at[:, rows_B].set(other.k_LBKHS, mode='drop'),
        self.v_LBKSH.at[:, rows_B].set(other.v_LBKSH, mode='drop'),
        self.length_B.at[rows_B].set(other.length_B, mode='drop'))

  def row(self, row: jax.Array, begin: jax.Array) -> 'KVCache':
    """Returns a copy of one row, turned so that slot `begin` is its first."""
    k_L1KHS, v_L1KSH, length_1 = (
        jax.lax.dynamic_slice_in_dim(x, row, 1, axis)
        for x, axis in ((self.k_LBKHS, 1), (self.v_LBKSH, 1), (self.length_B, 0)))
    return KVCache(jnp.roll(k_L1KHS, -begin, 4), jnp.roll(v_L1KSH, -begin, 3), length_1)

  def write(self, row: jax.Array, other: 'KVCache') -> 'KVCache':
    """Returns this cache with the slots of `other`, of one row, at the beginning of a row."""
    def write(x, y):
      return jax.lax.dynamic_update_slice_in_dim(x, y, row, 1)
    return dataclasses.replace(self, k_LBKHS=write(self.k_LBKHS, other.k_LBKHS),
                               v_LBKSH=write(self.v_LBKSH, other.v_LBKSH))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=['layers', 'length_B'], meta_fields=[])
@dataclass(frozen=True)
class UnrolledCache:
  """The same with an array for every layer, for a decoder without a loop over layers.

  XLA on a CPU would copy a layer's slots out of the stacked ones at every step.

  Attributes:
    layers: (keys [B, K, H, S], values [B, K, S, H]) of each layer.
    length_B: as in `KVCache`.
  """

  layers: tuple[tuple[jax.Array, jax.Array], ...]
  length_B: jax.Array

  @classmethod
  def of(cls, cache: KVCache) -> 'UnrolledCache':
    """Returns the slots of `cache`."""
    return cls(tuple(zip(cache.k_LBKHS, cache.v_LBKSH, strict=True)), cache.length_B)

  @property
  def slots(self) -> int:
    """How many tokens a row has room for."""
    return self.layers[0][1].shape[2]

  def with_length(self, length_B: jax.Array) -> 'UnrolledCache':
    """Returns the same slots with other lengths: rolls rows back."""
    return dataclasses.replace(self, length_B=length_B)

  def stacked(self) -> KVCache:
    """Returns a copy for a decoder that loops over layers."""
    k_LBKHS, v_LBKSH = (jnp.stack(x) for x in zip(*self.layers, strict=True))
    return KVCache(k_LBKHS, v_LBKSH, self.length_B)

  def take(self, rows_B: jax.Array) -> 'UnrolledCache':
    """Returns a copy of the given rows."""
    return jax.tree.map(lambda x: x[rows_B], self)

  def grow(self, slots: int) -> 'UnrolledCache':
    """Returns the same rows with room for `slots` tokens each."""
    none, more = (0, 0), (0, slots - self.slots)
    grown = [(jnp.pad(k_BKHS, [none, none, none, more]), jnp.pad(v_BKSH, [none, none, more, none]))
             for k_BKHS, v_BKSH in self.layers]
    return UnrolledCache(tuple(grown), self.length_B)

  def put(self, rows_B: jax.Array, other: 'UnrolledCache') -> 'UnrolledCache':
    """Returns this cache with `other`'s rows put in places; those out of range are dropped."""
    return jax.tree.map(lambda x, y: x.at[rows_B].set(y, mode='drop'), self, other)

  def write(self, row: jax.Array, other: KVCache) -> 'UnrolledCache':
    """Returns this cache with the slots of `other`, of one row, at the beginning of a row."""
    layers = jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, row, 0),
                          self.layers, UnrolledCache.of(other).layers)
    return UnrolledCache(layers, self.length_B)


AnyCache = KVCache | UnrolledCache


@functools.partial(jax.jit, static_argnames=('config', 'rows', 'slots', 'unrolled'))
def new_cache(config: DecoderConfig, rows: int, slots: int, unrolled: bool = False) -> AnyCache:
  """Returns an empty cache, by one compiled program: in steps it would be copied."""
  cache = KVCache.empty(config, rows, slots)
  return UnrolledCache.of(cache) if unrolled else cache


@jax.jit
def take_rows(cache: AnyCache, rows_B: jax.Array) -> AnyCache:
  """Returns a copy of the given rows, by one compiled program."""
  return cache.take(rows_B)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=['k_LPKHS', 'v_LPKSH', 'limit_B'],
    meta_fields=[],
)
@dataclass(frozen=True)
class Prefix:
  """Keys and values computed once and read by many rows, each up to its own limit.

  The batch's rows are divided evenly over the P prefix rows, in order: with B = 6 and P = 2 the
  first three rows read the first prefix. Row b sees the slots before limit_B[b].
  """

  k_LPKHS: jax.Array
  v_LPKSH: jax.Array
  limit_B: jax.Array

  @classmethod
  def of(cls, cache: KVCache, limit_B: jax.Array) -> 'Prefix':
    """Returns the rows of `cache` as a prefix."""
    return cls(cache.k_LBKHS, cache.v_LBKSH, limit_B)

  @property
  def slots(self) -> int:
    """Slots of each prefix row."""
    return self.v_LPKSH.shape[3]
