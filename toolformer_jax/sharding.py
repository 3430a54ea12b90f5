"""The mesh, the one table of logical-axis rules, and the shardings of a whole state.

Arrays name their dimensions with logical axes ('batch', 'heads', ...); `RULES` says which mesh axis
each of them is split over. The mesh always has all three axes, with size 1 where unused, so no
code asks how many devices there are. A dimension that its mesh axes do not divide (9 heads, a
vocabulary of 50,257) stays whole, and the log says so once.
"""

import contextlib
import functools
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

log = logging.getLogger(__name__)

MESH_AXES = ('data', 'fsdp', 'tensor')

RULES: dict[str, tuple[str, ...]] = {
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
  """Returns a mesh of `devices` (default: this process's); the axis of size -1 takes the rest.

  Of several slices of a TPU, which a slower network connects, each has a part of the data axis, or
  else of the fsdp axis.

  Raises:
    ValueError: the sizes do not multiply to the number of devices, or slices divide neither axis.
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
    return Mesh(_across_slices(shape, slices, devices), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
  return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def _across_slices(shape: Sequence[int], slices: int, devices: Sequence[jax.Device]) -> np.ndarray:
  """Returns the devices of several slices in a mesh of `shape`."""
  whole = [axis for axis in (0, 1) if shape[axis] % slices == 0]
  if not whole:
    raise ValueError(f'{slices} slices divide neither data {shape[0]} nor fsdp {shape[1]}')
  across = [slices if axis == whole[0] else 1 for axis in range(3)]
  within = [size // ways for size, ways in zip(shape, across, strict=True)]
  return mesh_utils.create_hybrid_device_mesh(within, across, devices)


@functools.cache
def _log_unsharded(name: str, size: int, ways: int) -> None:
  log.info('axis %s of size %d is not divisible by %d and stays unsharded', name, size, ways)


def partition_spec(
    shape: Sequence[int], names: Sequence[str | None], mesh_shape: dict[str, int]
) -> PartitionSpec:
  """Returns how an array of `shape`, its dimensions called `names`, is split over the mesh."""
  axes = []
  for size, name in zip(shape, names, strict=True):
    mesh_axes = RULES.get(name, ()) if name else ()
    ways = math.prod(mesh_shape[axis] for axis in mesh_axes)
    if size % ways:
      _log_unsharded(name, size, ways)
      mesh_axes = ()
    axes.append(mesh_axes or None)
  return PartitionSpec(*axes)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
  """Asks the compiler to keep `x` split by its dimensions' `names`; nothing without a mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  return jax.lax.with_sharding_constraint(x, partition_spec(x.shape, names, dict(mesh.shape)))


def rows_of_a_device(rows: int) -> int:
  """Returns how many of a batch's rows lie on one device of the current mesh; all without one."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return rows
  spec = partition_spec((rows,), ('batch',), dict(mesh.shape))
  return rows // math.prod(mesh.shape[axis] for axis in spec[0] or ())


def batch_ways(mesh: Mesh) -> int:
  """Returns over how many groups of devices a batch is divided, if its size allows it."""
  return math.prod(mesh.shape[axis] for axis in RULES['batch'])


def batch_sharding(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
  """Returns the sharding of an input array whose first dimension is the batch."""
  return named_sharding(mesh, shape, ('batch', *[None] * (len(shape) - 1)))


def named_sharding(
    mesh: Mesh, shape: Sequence[int], names: Sequence[str | None]
) -> NamedSharding:
  """Returns the sharding of an array of `shape`, its dimensions called `names`."""
  return NamedSharding(mesh, partition_spec(shape, names, dict(mesh.shape)))


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
  """Returns the sharding of every array of `abstract`.

  Args:
    abstract: a boxed state from `jax.eval_shape`: parameters carry their axes' names, and so does
      whatever an optimizer derives from them. Arrays without names are replicated.
    mesh: the mesh to lay it out on.
  """
  def sharding(leaf):
    names = leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else ()
    shape = leaf.value.shape if names else ()
    return named_sharding(mesh, shape, names)
  return jax.tree.map(sharding, abstract, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def abstract_with_sharding(abstract: Any, mesh: Mesh) -> Any:
  """Returns shape, dtype and sharding of every array of the boxed state `abstract`, without boxes.

  This is what restores a checkpoint onto `mesh`, whatever mesh it was written from.
  """
  return jax.tree.map(
      lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
      unbox(abstract), state_shardings(abstract, mesh))


def unbox(tree: Any) -> Any:
  """Returns `tree` with plain arrays where it holds arrays with axis names."""
  boxed = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
  return jax.tree.map(lambda x: x.value if boxed(x) else x, tree, is_leaf=boxed)


@contextlib.contextmanager
def on_mesh(mesh: Mesh) -> Iterator[None]:
  """Makes `mesh` the one that `constrain` and jitted functions see."""
  with jax.set_mesh(mesh):
    yield
