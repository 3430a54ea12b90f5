"""TPU slices by name, and descriptions of their devices to compile for."""

import importlib.util
import math
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from toolformer_jax.errors import UserError, unknown
from toolformer_jax.runtime import libtpu
from toolformer_jax.runtime.chips import CHIPS, Chip

GIB = 2**30

_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBES = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8')
_SHAPES = {'v4': _CUBES, 'v5e': _FLAT, 'v5p': _CUBES, 'v6e': _FLAT}
# A name such as v4-8 counts cores, of which these chips have two each.
_TWO_CORES = ('v4', 'v5p')
# Memory that the compiler leaves to a program, in GiB; the rest is reserved.
_USABLE = {'v4': 30.75, 'v5e': 15.75, 'v5p': 95.74, 'v6e': 31.25}


@dataclass(frozen=True)
class Slice:
  """Linked chips of one kind.

  Attributes:
    kind: 'v4', 'v5e', 'v5p' or 'v6e'.
    shape: number of chips in each direction, '2x4'.
  """

  kind: str
  shape: str

  @classmethod
  def named(cls, name: str) -> 'Slice':
    """Returns the slice `name`: kind and shape as in v5e:2x4, or kind and size as in v5e-8.

    Raises:
      UserError: there is no slice of this name.
    """
    known: dict[str, Slice] = {}
    for kind, shapes in _SHAPES.items():
      for shape in shapes:
        one = cls(kind, shape)
        known |= {one.name: one, one.short_name: one}
    found = known.get(name.lower().replace('v5litepod', 'v5e'))
    if found is None:
      raise unknown('topology', name, known)
    return found

  @property
  def name(self) -> str:
    """Kind and shape, 'v5e:2x4'."""
    return f'{self.kind}:{self.shape}'

  @property
  def short_name(self) -> str:
    """Name at Google Cloud, 'v5e-8'; of v4 and v5p it counts cores, two for each chip."""
    return f'{self.kind}-{self.chips * (2 if self.kind in _TWO_CORES else 1)}'

  @property
  def chips(self) -> int:
    """Number of chips."""
    return math.prod(map(int, self.shape.split('x')))

  @property
  def chip(self) -> Chip:
    """Peak rates and memory of one chip."""
    return next(chip for chip in CHIPS if chip.name == self.kind)

  @property
  def usable_memory(self) -> int:
    """Bytes of a chip's memory that a program may use."""
    return int(_USABLE[self.kind] * GIB)

  def devices(self) -> list[jax.Device]:
    """Returns devices to compile for; they cannot run programs.

    Raises:
      UserError: libtpu is not installed, or another version than this JAX needs.
    """
    if importlib.util.find_spec('libtpu') is None:
      raise UserError("the TPU compiler is not installed; pip install 'toolformer_jax[aot]'")
    libtpu.set_environment()
    try:
      return topologies.get_topology_desc(
          platform='tpu', topology_name=self.name, **self._details()).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
      raise UserError(f'libtpu cannot describe {self.name}: {error}') from error

  def _details(self) -> dict:
    if self.kind == 'v4':  # or its two cores would be two devices
      return {'chip_config_name': 'megacore', 'chips_per_host_bounds': (2, 2, 1), 'num_slices': 1,
              'wrap': (False,) * 3}
    return {'chips_per_host_bounds': (1, 1, 1)} if self.chips == 1 else {}
