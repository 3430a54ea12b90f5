"""Keys and values that later tokens attend to: a row's own, and those that many rows share."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from toolformer_jax import sharding
from toolformer_jax.models.config import DecoderConfig

Layout = Literal['stacked', 'per_layer']
# Axes of a cache's arrays, counted from the last one: the same in both layouts.
_ROWS, _SLOTS_OF_KEYS, _SLOTS_OF_VALUES = -4, -1, -2


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=['keys', 'values', 'length_B'],
    meta_fields=[],
)
@dataclass(frozen=True)
class KVCache:
  """Keys and values of every layer, and the number of slots in use of each row.

  Slots at and after a row's length are never read. Setting a length back undoes what was written
  since, and the slots are overwritten later. Keys have their slots last: contracting them over the
  head's dimension is then a plain matrix product, which is 3 times faster on a CPU.

  The layout is 'stacked', with one array for all layers, or 'per_layer', with a tuple of arrays,
  for a decoder that does not scan its layers: there XLA on a CPU would copy a layer out of the
  stacked array at every step.

  Attributes:
    keys: [L, B, K, H, S], or [B, K, H, S] for each layer.
    values: [L, B, K, S, H], or [B, K, S, H] for each layer.
    length_B: slots in use, int32.
  """

  keys: jax.Array | tuple[jax.Array, ...]
  values: jax.Array | tuple[jax.Array, ...]
  length_B: jax.Array

  @classmethod
  def empty(cls, config: DecoderConfig, rows: int, slots: int, layout: Layout = 'stacked'
            ) -> 'KVCache':
    """Returns a cache of `rows` rows of length 0, with `slots` slots each."""
    def zeros(*sizes: int) -> jax.Array:
      shape = (config.layers, rows, config.kv_heads, *sizes)
      return sharding.constrain(
          jnp.zeros(shape, config.activation_dtype), None, 'batch', 'kv_heads', None, None)
    cache = cls(zeros(config.head_dim, slots), zeros(slots, config.head_dim),
                jnp.zeros(rows, jnp.int32))
    return cache.to_layout(layout)

  @property
  def layout(self) -> Layout:
    """Whether layers are stacked in one array."""
    return 'per_layer' if isinstance(self.keys, tuple) else 'stacked'

  @property
  def stacked(self) -> tuple[jax.Array, jax.Array]:
    """Keys and values of a stacked cache. Raises TypeError if it has the other layout."""
    if isinstance(self.keys, tuple) or isinstance(self.values, tuple):
      raise TypeError('the layers of this cache are not stacked')
    return self.keys, self.values

  @property
  def slots(self) -> int:
    """Number of slots of each row."""
    return jax.tree.leaves(self.values)[0].shape[-2]

  def to_layout(self, layout: Layout) -> 'KVCache':
    """Returns the cache in a layout; a copy if it has the other one."""
    if layout == self.layout:
      return self
    convert = tuple if layout == 'per_layer' else jnp.stack
    return dataclasses.replace(self, keys=convert(self.keys), values=convert(self.values))

  def layer(self, layer: int) -> 'KVCache':
    """Returns one layer of a per-layer cache, as a stacked cache with one layer."""
    return KVCache(self.keys[layer][None], self.values[layer][None], self.length_B)

  @classmethod
  def from_layers(cls, layers: Sequence['KVCache']) -> 'KVCache':
    """Returns a per-layer cache of stacked caches with one layer each."""
    return cls(tuple(layer.keys[0] for layer in layers), tuple(layer.values[0] for layer in layers),
               layers[0].length_B)

  def append(self, layer: jax.Array | int, k_BTKH: jax.Array, v_BTKH: jax.Array
             ) -> tuple[tuple[jax.Array, jax.Array], 'KVCache']:
    """Writes new tokens' keys and values to one layer, behind the slots in use.

    Args:
      layer: index of a layer of this stacked cache.
      k_BTKH: keys; tokens for which there is no slot are dropped.
      v_BTKH: values.

    Returns:
      the layer's keys [B, K, H, S] and values [B, K, S, H] with the new ones; and the cache, whose
      length stays as it is until all layers are written.
    """
    B, T = k_BTKH.shape[:2]
    rows_B1, slots_BT = jnp.arange(B)[:, None], self.length_B[:, None] + jnp.arange(T)
    # Written in place in the carried array: scanning over layers' slices copies the cache, which
    # takes twice its memory.
    keys, values = self.stacked
    k_LBKHS = keys.at[layer, rows_B1, :, :, slots_BT].set(k_BTKH, mode='drop')
    v_LBKSH = values.at[layer, rows_B1, :, slots_BT].set(v_BTKH, mode='drop')
    of_layer = tuple(jax.lax.dynamic_index_in_dim(x, layer, 0, False) for x in (k_LBKHS, v_LBKSH))
    return of_layer, KVCache(k_LBKHS, v_LBKSH, self.length_B)

  def with_length(self, length_B: jax.Array) -> 'KVCache':
    """Returns the same slots with other lengths: rolls rows back."""
    return dataclasses.replace(self, length_B=length_B)

  def take(self, rows_B: jax.Array) -> 'KVCache':
    """Returns a copy of the given rows."""
    rows = (slice(None), rows_B) if self.layout == 'stacked' else rows_B
    keys, values = (jax.tree.map(lambda x: x[rows], part) for part in (self.keys, self.values))
    return KVCache(keys, values, self.length_B[rows_B])

  def grow(self, slots: int) -> 'KVCache':
    """Returns the same rows with `slots` slots each."""
    more = slots - self.slots
    def pad(x: jax.Array, axis: int) -> jax.Array:
      return jnp.pad(x, [(0, more if a == axis % x.ndim else 0) for a in range(x.ndim)])
    return dataclasses.replace(
        self, keys=jax.tree.map(lambda x: pad(x, -1), self.keys),
        values=jax.tree.map(lambda x: pad(x, -2), self.values))

  def put(self, rows_B: jax.Array, other: 'KVCache') -> 'KVCache':
    """Returns this cache with the rows of `other` at `rows_B`; rows out of range are dropped."""
    def put(x: jax.Array, y: jax.Array) -> jax.Array:
      rows = (slice(None), rows_B) if self.layout == 'stacked' else rows_B
      return x.at[rows].set(y, mode='drop')
    return KVCache(jax.tree.map(put, self.keys, other.keys),
                   jax.tree.map(put, self.values, other.values),
                   self.length_B.at[rows_B].set(other.length_B, mode='drop'))

  def row(self, row: jax.Array, begin: jax.Array) -> 'KVCache':
    """Returns a copy of one row of a stacked cache, rolled so that slot `begin` comes first."""
    keys, values = self.stacked
    k_L1KHS, v_L1KSH, length_1 = (
        jax.lax.dynamic_slice_in_dim(x, row, 1, axis)
        for x, axis in ((keys, 1), (values, 1), (self.length_B, 0)))
    return KVCache(jnp.roll(k_L1KHS, -begin, 4), jnp.roll(v_L1KSH, -begin, 3), length_1)

  def block(self, row: jax.Array | int, begin: jax.Array | int, slots: int) -> 'KVCache':
    """Returns a copy of `slots` slots of one row, from slot `begin` on."""
    def read(x: jax.Array, axis: int) -> jax.Array:
      x = jax.lax.dynamic_slice_in_dim(x, row, 1, _ROWS)
      return jax.lax.dynamic_slice_in_dim(x, begin, slots, axis)
    return KVCache(jax.tree.map(lambda x: read(x, _SLOTS_OF_KEYS), self.keys),
                   jax.tree.map(lambda x: read(x, _SLOTS_OF_VALUES), self.values),
                   jnp.full(1, slots, jnp.int32))

  def write(self, row: jax.Array | int, other: 'KVCache', begin: jax.Array | int = 0) -> 'KVCache':
    """Returns this cache with the slots of `other`, which has one row, in a row from `begin` on."""
    other = other.to_layout(self.layout)
    def write(x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
      starts = dict.fromkeys(range(-x.ndim, 0), 0) | {_ROWS: row, axis: begin}
      return jax.lax.dynamic_update_slice(x, y, tuple(starts.values()))
    return dataclasses.replace(
        self, keys=jax.tree.map(lambda x, y: write(x, y, _SLOTS_OF_KEYS), self.keys, other.keys),
        values=jax.tree.map(lambda x, y: write(x, y, _SLOTS_OF_VALUES), self.values, other.values))


@functools.partial(jax.jit, static_argnames=('config', 'rows', 'slots', 'layout'))
def new_cache(config: DecoderConfig, rows: int, slots: int, layout: Layout = 'stacked') -> KVCache:
  """Returns an empty cache from one compiled program; operation by operation it would be copied."""
  return KVCache.empty(config, rows, slots, layout)


@jax.jit
def take_rows(cache: KVCache, rows_B: jax.Array) -> KVCache:
  """Returns a copy of the given rows, from one compiled program."""
  return cache.take(rows_B)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=['k_LPKHS', 'v_LPKSH', 'limit_B'],
    meta_fields=[],
)
@dataclass(frozen=True)
class Prefix:
  """Keys and values that are computed once and read by many rows, each up to its own limit.

  The batch's rows are divided evenly over the P prefix rows, in order: with B = 6 and P = 2 the
  first three rows read the first prefix row.

  Attributes:
    k_LPKHS: keys.
    v_LPKSH: values.
    limit_B: number of slots that each row of the batch attends to, int32; None inside a layer,
      whose masks contain the limits. Inside a layer, keys and values lack the dimension L.
  """

  k_LPKHS: jax.Array
  v_LPKSH: jax.Array
  limit_B: jax.Array | None

  @classmethod
  def of(cls, cache: KVCache, limit_B: jax.Array) -> 'Prefix':
    """Returns the rows of a stacked cache as a prefix."""
    return cls(*cache.stacked, limit_B)

  @property
  def limits_B(self) -> jax.Array:
    """`limit_B` outside layers. Raises ValueError inside one."""
    if self.limit_B is None:
      raise ValueError('inside a layer the masks contain the limits')
    return self.limit_B

  @property
  def slots(self) -> int:
    """Number of slots of each prefix row."""
    return self.v_LPKSH.shape[3]
