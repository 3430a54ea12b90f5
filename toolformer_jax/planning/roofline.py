"""How long a step takes at least: arithmetic, memory and links, each at its chip's best.

The three can overlap, so none of them alone can be beaten and their sum need not be reached. A
measured step is slower: nothing here knows how well the compiler's code uses the chip.
"""

from dataclasses import dataclass

from toolformer_jax.planning.hlo import Collectives
from toolformer_jax.runtime.chips import Chip

# A sum goes round twice: once to be formed, once to be handed out.
_ROUNDS = {'all-reduce': 2}


@dataclass(frozen=True)
class Roofline:
  """Lower bounds of one run of a program, in seconds.

  Attributes:
    compute_s: its floating-point operations.
    memory_s: what has to be read from and written to each chip's memory.
    links_s: what its chips send each other.
    tokens_per_s: at most, if the longest of the three is all that it takes.
    utilization: share (MFU) of the chips' peak that useful operations are then, at most.
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
    chip, chips: what it runs on, and how many of them share the work.
    tokens: that it reads or writes.
    useful_flops, flops: of all chips together, without and with what is computed twice.
    traffic: bytes that each chip reads or writes at least.
    collectives: what the chips send each other.
  """
  sent = sum(size * _ROUNDS.get(kind, 1) for kind, size in collectives.bytes.items())
  compute_s = flops / (chips * chip.flops_per_s)
  memory_s, links_s = traffic / chip.bytes_per_s, sent / chip.link_bytes_per_s
  seconds = max(compute_s, memory_s, links_s)
  return Roofline(compute_s, memory_s, links_s, tokens / seconds,
                  useful_flops / (chips * chip.flops_per_s * seconds))
