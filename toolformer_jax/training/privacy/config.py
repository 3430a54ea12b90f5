"""Settings of differentially private training."""

from dataclasses import dataclass

from toolformer_jax.runtime.validation import check


@dataclass(frozen=True)
class PrivacyConfig:
  """What protects the texts that a model is trained on (DP-SGD, Abadi et al. 2016).

  Attributes:
    noise_multiplier: standard deviation of the noise that is added to the sum of a batch's
      gradients, divided by `l2_clip_norm`; 0 for none, and no guarantee.
    l2_clip_norm: the largest L2 norm of a text's gradient; a longer one is scaled down to it.
    delta: the guarantee is (epsilon, delta)-differential privacy. Must be less than one divided by
      the number of texts.
  """

  noise_multiplier: float = 1.0
  l2_clip_norm: float = 1.0
  delta: float = 1e-5

  def __post_init__(self) -> None:
    check(self, noise_multiplier=(0.0, 1e6), l2_clip_norm=(1e-9, 1e9), delta=(1e-300, 0.1))
