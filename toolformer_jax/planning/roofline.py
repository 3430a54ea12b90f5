"""Lower bounds of a step's time: arithmetic, memory and links, each at the chip's peak rate.

The three can overlap, so that the longest of them is the bound, and not their sum. A measured step
takes longer: how well the compiler's code uses the chip is not known here.
"""

from dataclasses import dataclass

from toolformer_jax.planning.hlo import Collectives
from toolformer_jax.runtime.chips import Chip

# An all-reduce sends its data twice: to form the sums, and to distribute them.
_ROUNDS = {'all-reduce': 2}


@dataclass(frozen=True)
class Roofline:
  """Lower bounds of one run of a program, in seconds.

  Attributes:
    compute_s: time of the floating-point operations.
    memory_s: time to read and write each chip's memory.
    links_s: time of the communication between chips.
    tokens_per_s: upper bound of the speed, by the longest of the three.
    utilization: useful operations as a share of the chips' peak (MFU) at this speed.
  """

  compute_s: float
  memory_s: float
  links_s: float
  tokens_per_s: float
  utilization: float


def roofline(*, chip: Chip, chips: int, tokens: int, useful_flops: float, flops: float,
             traffic: float, collectives: Collectives) -> Roofline:
  """Returns the bounds of a program.

  Args:
    chip: the kind of chip.
    chips: number of chips.
    tokens: tokens that the program reads or writes.
    useful_flops: floating-point operations of all chips, without what is computed more than once.
    flops: the same with what is computed more than once.
    traffic: bytes that each chip reads from or writes to its memory, at least.
    collectives: communication between the chips.
  """
  sent = sum(size * _ROUNDS.get(kind, 1) for kind, size in collectives.bytes.items())
  compute_s = flops / (chips * chip.flops_per_s)
  memory_s, links_s = traffic / chip.bytes_per_s, sent / chip.link_bytes_per_s
  seconds = max(compute_s, memory_s, links_s)
  return Roofline(compute_s, memory_s, links_s, tokens / seconds,
                  useful_flops / (chips * chip.flops_per_s * seconds))
