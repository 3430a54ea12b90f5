"""Draws the batches of each step and puts them on the devices."""

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import sharding
from toolformer_jax.inference.batching import first_fit
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.packing import PackedRows, Sequences

_MEASURED_STEPS = 1000


def batch_indices(item_count: int, batch_items: int, seed: int, start_step: int
                  ) -> Iterator[np.ndarray]:
  """Yields the indices of each batch's rows or sequences, [batch_items], from `start_step` on.

  Each epoch has all items in a new random order, and a batch may span two epochs. The batch of a
  step depends only on (seed, step), so that a resumed run sees the same batches.
  """
  def permutation(epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(item_count)
  epochs: dict[int, np.ndarray] = {}
  for step in itertools.count(start_step):
    places = np.arange(step * batch_items, (step + 1) * batch_items)
    epochs = {epoch: permutation(epoch) if epoch not in epochs else epochs[epoch]
              for epoch in np.unique(places // item_count).tolist()}
    yield np.array([epochs[place // item_count][place % item_count] for place in places.tolist()])


def with_row_multiple(data: Sequences, config: FinetuneConfig, mesh: Mesh) -> Sequences:
  """Returns `data` so that almost every batch of a run has the same number of rows.

  It is that of the largest batch of the first thousand steps. A later one with more has twice as
  many. All microbatches and all devices have the same number of rows.
  """
  lengths = [len(segment.inputs) for segment in data.segments]
  batches = batch_indices(len(data), config.batch_items, config.seed, 0)
  most = max(len(first_fit([lengths[i] for i in batch], data.row_tokens))
             for batch in itertools.islice(batches, min(config.steps, _MEASURED_STEPS)))
  unit = config.num_microbatches * sharding.batch_shards(mesh)
  return dataclasses.replace(data, row_multiple=-(-most // unit) * unit)


def put_batch(rows: PackedRows, indices: np.ndarray, mesh: Mesh) -> PackedRows:
  """Returns the rows at `indices` [B] as global arrays [B, T] on `mesh`, sharded as a batch.

  Each process reads only the rows that its own devices hold.
  """
  def put(array: np.ndarray) -> jax.Array:
    shape = (len(indices), *array.shape[1:])
    batch_sharding = sharding.batch_sharding(mesh, shape)
    return jax.make_array_from_callback(
        shape, batch_sharding, lambda index: array[indices[index[0]]])
  return jax.tree.map(put, rows)
