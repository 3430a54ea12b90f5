"""Settings of the training of compressed models."""

from dataclasses import dataclass

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
