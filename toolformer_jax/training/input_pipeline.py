"""Draws the batches of each step from packed rows and puts them on the devices."""

import itertools
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import sharding
from toolformer_jax.training.packing import PackedRows


def batch_indices(row_count: int, batch_rows: int, seed: int, start_step: int
                  ) -> Iterator[np.ndarray]:
  """Yields the indices of the rows of each batch, [batch_rows], from step `start_step` on.

  Each epoch has all rows in a new random order, and a batch may span two epochs. The batch of a
  step depends only on (seed, step), so that a resumed run sees the same batches.
  """
  def permutation(epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(row_count)
  epochs: dict[int, np.ndarray] = {}
  for step in itertools.count(start_step):
    places = np.arange(step * batch_rows, (step + 1) * batch_rows)
    epochs = {epoch: permutation(epoch) if epoch not in epochs else epochs[epoch]
              for epoch in np.unique(places // row_count).tolist()}
    yield np.array([epochs[place // row_count][place % row_count] for place in places.tolist()])


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
