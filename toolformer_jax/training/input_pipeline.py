"""Draws the batches of each step and puts them on the devices."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import sharding
from toolformer_jax.inference.batching import first_fit
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.packing import PackedRows, Sequences

_MEASURED_STEPS = 1000

# The items of a batch: numbers of blocks, with the indices of items in each.
Picks = list[tuple[int, np.ndarray]]


class Sizes(Protocol):
  """Numbers of items, in blocks."""

  def size(self, block: int) -> int:
    """Returns the number of items of a block."""
    ...


class Blocks(Sizes, Protocol):
  """The items of a run, rows or sequences, in blocks: each is drawn in a random order."""

  @property
  def row_multiple(self) -> int:
    """The number of rows of a batch of sequences is a multiple of this."""
    ...

  @property
  def epoch_items(self) -> int | None:
    """Number of items of an epoch; None for a stream."""
    ...

  def rows(self, picks: Picks) -> PackedRows:
    """Returns the rows of a batch."""
    ...


class Epochs:
  """Items that are in memory: every block has all of them, and is an epoch."""

  def __init__(self, data: PackedRows | Sequences):
    self._data = data
    self.row_multiple = getattr(data, 'row_multiple', 1)
    self.epoch_items = len(data)

  def size(self, block: int) -> int:
    """Returns the number of items."""
    return len(self._data)

  def rows(self, picks: Picks) -> PackedRows:
    """Returns the rows of a batch."""
    return self._data.take(np.concatenate([indices for _, indices in picks]))


@dataclasses.dataclass(frozen=True)
class _EqualBlocks:
  """Blocks of equally many items."""

  items: int

  def size(self, block: int) -> int:
    return self.items


def batch_picks(blocks: Sizes, batch_items: int, seed: int, start_step: int) -> Iterator[Picks]:
  """Yields the items of each batch from `start_step` on, `batch_items` in total.

  Each block has its items in a new random order, and a batch may span several blocks. The batch of
  a step depends only on (seed, step), so that a resumed run sees the same batches.
  """
  block, first = 0, 0  # of the block, counted over all blocks
  orders: dict[int, np.ndarray] = {}
  for step in itertools.count(start_step):
    place, end, picks = step * batch_items, (step + 1) * batch_items, []
    while place < end:
      while place >= first + blocks.size(block):
        first, block = first + blocks.size(block), block + 1
      if block not in orders:
        orders = {block: np.random.default_rng((seed, block)).permutation(blocks.size(block))}
      last = min(end, first + blocks.size(block))
      picks.append((block, orders[block][place - first:last - first]))
      place = last
    yield picks


def batch_indices(item_count: int, batch_items: int, seed: int, start_step: int
                  ) -> Iterator[np.ndarray]:
  """Yields the indices of each batch's items, [batch_items], where all items are in memory."""
  for picks in batch_picks(_EqualBlocks(item_count), batch_items, seed, start_step):
    yield np.concatenate([indices for _, indices in picks])


def with_row_multiple(data: Sequences, config: FinetuneConfig, mesh: Mesh) -> Sequences:
  """Returns `data` so that almost every batch of a run has the same number of rows.

  It is that of the largest batch of the first thousand steps. A later one with more has twice as
  many. All microbatches and all devices have the same number of rows.
  """
  multiple = row_multiple(largest_batch(data, config), config, mesh)
  return dataclasses.replace(data, row_multiple=multiple)


def largest_batch(data: Sequences, config: FinetuneConfig) -> int:
  """Returns the most rows that a batch of the first thousand steps needs."""
  lengths = [len(segment.inputs) for segment in data.segments]
  batches = batch_indices(len(data), config.batch_items, config.seed, 0)
  return max(len(first_fit([lengths[i] for i in batch], data.row_tokens))
             for batch in itertools.islice(batches, min(config.steps, _MEASURED_STEPS)))


def row_multiple(largest: int, config: FinetuneConfig, mesh: Mesh) -> int:
  """Returns `largest`, rounded up so that microbatches and devices have equally many rows."""
  unit = config.num_microbatches * sharding.batch_shards(mesh)
  return -(-largest // unit) * unit


def put_batch(rows: PackedRows, indices: np.ndarray, mesh: Mesh) -> PackedRows:
  """Returns the rows at `indices` [B] as global arrays [B, T] on `mesh`, sharded as a batch.

  Each process reads only the rows that its own devices hold.
  """
  def put(array: np.ndarray) -> jax.Array:
    shape = (len(indices), *array.shape[1:])
    batch_sharding = sharding.batch_sharding(mesh, shape)
    def own_rows(index: tuple[slice, ...] | None) -> np.ndarray:
      return array[indices[index[0] if index else slice(None)]]
    return jax.make_array_from_callback(shape, batch_sharding, own_rows)
  return jax.tree.map(put, rows)
