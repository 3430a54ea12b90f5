"""The mesh, the one table of logical-axis rules, and the shardings of a whole state.

Arrays name their dimensions by logical axes ('batch', 'heads', ...), and `LOGICAL_AXIS_RULES` maps
each logical axis to mesh axes. The mesh always has all three axes, with size 1 where unused, so no
code asks how many devices there are. A dimension that is not divisible by the size of its mesh axes
(9 heads, a vocabulary of 50,257) is not sharded, which is logged once.
"""

import functools
import logging
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

log = logging.getLogger(__name__)

MESH_AXES = ('data', 'fsdp', 'tensor')

LOGICAL_AXIS_RULES: dict[str, tuple[str, ...]] = {
    'batch': ('data', 'fsdp'),
    'embed': ('fsdp',),
    'vocab': ('tensor',),
    'heads': ('tensor',),
    'kv_heads': ('tensor',),
    'mlp': ('tensor',),
}


def make_mesh(
    data: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a mesh.

  Several TPU slices, which are connected by a slower network, divide the data axis, or else the
  fsdp axis.

  Args:
    data: size of the axis that only the batch is sharded over.
    fsdp: size of the axis that batch, weights and optimizer state are sharded over.
    tensor: size of the axis that heads, MLP and vocabulary are sharded over.
    devices: of the mesh; by default all of this process. An axis of size -1 takes the devices that
      the other axes leave.

  Raises:
    ValueError: the product of the sizes is not the number of devices, or the number of slices
      divides neither axis.
  """
  devices = jax.local_devices() if devices is None else devices
  shape = [data, fsdp, tensor]
  if -1 in shape:
    known = math.prod(size for size in shape if size != -1)
    shape[shape.index(-1)] = len(devices) // known
  if math.prod(shape) != len(devices):
    raise ValueError(f'a mesh of {data} x {fsdp} x {tensor} does not fit {len(devices)} devices')
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices > 1:
    return Mesh(_multislice(shape, slices, devices), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
  return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def _multislice(shape: Sequence[int], slices: int, devices: Sequence[jax.Device]) -> np.ndarray:
  """Returns the devices of several slices, arranged as a mesh of `shape`."""
  divisible = [axis for axis in (0, 1) if shape[axis] % slices == 0]
  if not divisible:
    raise ValueError(f'{slices} slices divide neither data {shape[0]} nor fsdp {shape[1]}')
  across = [slices if axis == divisible[0] else 1 for axis in range(3)]
  within = [size // count for size, count in zip(shape, across, strict=True)]
  return mesh_utils.create_hybrid_device_mesh(within, across, devices)


@functools.cache
def _log_unsharded(name: str, size: int, shards: int) -> None:
  log.info('axis %s of size %d is not divisible by %d and stays unsharded', name, size, shards)


def partition_spec(
    shape: Sequence[int], names: Sequence[str | None], mesh_shape: dict[str, int]
) -> PartitionSpec:
  """Returns how an array of `shape`, with logical axes `names`, is sharded over a mesh."""
  axes = []
  for size, name in zip(shape, names, strict=True):
    mesh_axes = LOGICAL_AXIS_RULES.get(name, ()) if name else ()
    shards = math.prod(mesh_shape[axis] for axis in mesh_axes)
    if size % shards:
      _log_unsharded(name, size, shards)
      mesh_axes = ()
    axes.append(mesh_axes or None)
  return PartitionSpec(*axes)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
  """Returns `x`, constrained to be sharded by its logical axes; `x` itself without a mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  return jax.lax.with_sharding_constraint(x, partition_spec(x.shape, names, dict(mesh.shape)))


def on_one_device() -> bool:
  """Returns whether what is traced now runs on one device: with a mesh of one, or without any."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.empty or mesh.size == 1


def rows_per_device(rows: int) -> int:
  """Returns how many rows of a batch each device of the current mesh has; all without a mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return rows
  spec = partition_spec((rows,), ('batch',), dict(mesh.shape))
  return rows // math.prod(mesh.shape[axis] for axis in spec[0] or ())


def batch_shards(mesh: Mesh) -> int:
  """Returns the number of shards of a batch whose size is divisible by it."""
  return math.prod(mesh.shape[axis] for axis in LOGICAL_AXIS_RULES['batch'])


def batch_sharding(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
  """Returns the sharding of an array whose first dimension is the batch."""
  return named_sharding(mesh, shape, ('batch', *[None] * (len(shape) - 1)))


def named_sharding(
    mesh: Mesh, shape: Sequence[int], names: Sequence[str | None]
) -> NamedSharding:
  """Returns the sharding of an array of `shape`, with logical axes `names`."""
  return NamedSharding(mesh, partition_spec(shape, names, dict(mesh.shape)))


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
  """Returns the sharding of every array of `abstract`.

  Args:
    abstract: a boxed state from `jax.eval_shape`. Parameters carry their logical axes, and so does
      the optimizer state that is derived from them. Arrays without logical axes are replicated.
    mesh: that the state is sharded over.
  """
  def sharding(leaf: Any) -> NamedSharding:
    names = leaf.names if _is_boxed(leaf) else ()
    shape = leaf.value.shape if names else ()
    return named_sharding(mesh, shape, names)
  return jax.tree.map(sharding, abstract, is_leaf=_is_boxed)


def abstract_with_sharding(abstract: Any, mesh: Mesh) -> Any:
  """Returns shape, dtype and sharding of every array of the boxed state `abstract`, unboxed.

  A checkpoint is restored with these, whichever mesh it was written from.
  """
  return jax.tree.map(
      lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
      unbox(abstract), state_shardings(abstract, mesh))


def unbox(tree: Any) -> Any:
  """Returns `tree` with plain arrays in place of arrays with logical axes."""
  return jax.tree.map(lambda x: x.value if _is_boxed(x) else x, tree, is_leaf=_is_boxed)


def _is_boxed(x: Any) -> bool:
  return isinstance(x, nn.LogicallyPartitioned)
