"""Settings of the training of compressed models."""

from dataclasses import dataclass
from typing import Literal

from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.weight_groups import GROUP_SIZES, check_groups
from toolformer_jax.runtime.validation import check


@dataclass(frozen=True)
class DistillationConfig:
  """What a model learns from a teacher besides the texts (Hinton et al. 2015).

  The objective of a token is (1 - weight) times its own loss, plus weight * temperature^2 times
  the Kullback-Leibler divergence of the model's distribution from the teacher's.

  Attributes:
    weight: share of the teacher in the objective; 0 for none, 1 for the teacher alone.
    temperature: what the logits of both are divided by; above 1, tokens that the teacher finds
      unlikely count for more.
  """

  weight: float = 0.5
  temperature: float = 1.0

  def __post_init__(self) -> None:
    check(self, weight=(0.0, 1.0), temperature=(0.01, 100.0))


@dataclass(frozen=True)
class QatConfig:
  """How weights are rounded in the loss (quantization-aware training).

  They are rounded as `toolformer compress` does with the same settings of CompressionConfig, and
  the rounding 'nearest'.

  Attributes:
    bits: bits of each weight in the matrices of blocks: 'int8' (a scale for each output) or 'int4'
      (a scale for each group of inputs).
    group_size: number of inputs that share a scale in 'int4'; it divides those of every matrix.
  """

  bits: Literal['int8', 'int4'] = 'int4'
  group_size: int = 32

  def __post_init__(self) -> None:
    if str(self.bits) == 'mixed':  # as CompressionConfig has it
      raise UserError("QatConfig.bits must be 'int8' or 'int4', not 'mixed': which layers have 4 "
                      'bits is chosen after the training')
    check(self)
    if self.group_size not in GROUP_SIZES:
      raise UserError(f'QatConfig.group_size must be 32, 64 or 128, not {self.group_size}')

  def grid(self, inputs: int) -> tuple[int, int]:
    """Returns the bits of a matrix of a block, and how many of its inputs share a scale.

    In 8 bits all inputs of an output do.
    """
    return (8, inputs) if self.bits == 'int8' else (4, self.group_size)

  def check_model(self, decoder: DecoderConfig) -> None:
    """Raises UserError if a model's matrices cannot be rounded so."""
    if self.bits == 'int4':
      check_groups(decoder, self.group_size, 'QatConfig')
