"""Peak performance of accelerators, from their data sheets."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import jax


@dataclass(frozen=True)
class Chip:
  """An accelerator chip.

  Attributes:
    name: short name, as in the names of TPU slices.
    kinds: prefixes of `device_kind` in JAX.
    flops_per_s: peak of dense bfloat16 matrix products.
    bytes_per_s: memory bandwidth.
    memory: memory in bytes.
    link_bytes_per_s: bandwidth from other chips, over all links.
  """

  name: str
  kinds: tuple[str, ...]
  flops_per_s: float
  bytes_per_s: float
  memory: float
  link_bytes_per_s: float


# The first match is used: 'TPU v5' is also a prefix of 'TPU v5 lite'.
CHIPS = (
    Chip('v4', ('TPU v4',), 275e12, 1.2e12, 32 * 2**30, 300e9),
    Chip('v5e', ('TPU v5 lite', 'TPU v5e'), 197e12, 0.81e12, 16 * 2**30, 200e9),
    Chip('v5p', ('TPU v5',), 459e12, 2.8e12, 96 * 2**30, 600e9),
    Chip('v6e', ('TPU v6 lite', 'TPU v6e'), 918e12, 1.6e12, 32 * 2**30, 400e9),
    Chip('a100', ('NVIDIA A100',), 312e12, 2.0e12, 80e9, 300e9),
    Chip('h100', ('NVIDIA H100',), 989e12, 3.35e12, 80e9, 450e9),
    Chip('h200', ('NVIDIA H200',), 989e12, 4.8e12, 141e9, 450e9),
)


def chip_of(device: 'jax.Device') -> Chip | None:
  """Returns the chip of `device`, or None if it is unknown."""
  for chip in CHIPS:
    if device.device_kind.startswith(chip.kinds):
      return chip
  return None
