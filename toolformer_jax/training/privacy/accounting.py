"""How much privacy a run has spent."""

import math
from typing import Any

from toolformer_jax.training.privacy.config import PrivacyConfig


def spent_epsilon(privacy: PrivacyConfig, sampling_probability: float, steps: int) -> float:
  """Returns the epsilon that is spent by `steps` steps; infinity without noise.

  Neighbouring data sets differ in one text, which is added or removed. A step is a Gaussian
  mechanism on a Poisson sample, which has each text with `sampling_probability`. The steps are
  composed by privacy loss distributions (dp-accounting).
  """
  if not steps:
    return 0.0
  if not privacy.noise_multiplier:
    return math.inf
  from dp_accounting.pld import PLDAccountant  # slow to import
  accountant = PLDAccountant()
  accountant.compose(_event(privacy.noise_multiplier, sampling_probability, steps))
  return float(accountant.get_epsilon(privacy.delta))


def noise_for_epsilon(epsilon: float, delta: float, sampling_probability: float, steps: int
                      ) -> float:
  """Returns the noise multiplier with which a run of `steps` steps spends `epsilon`."""
  import dp_accounting  # slow to import
  from dp_accounting.pld import PLDAccountant
  return float(dp_accounting.calibrate_dp_mechanism(
      PLDAccountant, lambda noise: _event(noise, sampling_probability, steps), epsilon, delta,
      tol=1e-4))


def _event(noise_multiplier: float, sampling_probability: float, steps: int) -> Any:
  """Returns what the training does to the data, for dp-accounting."""
  import dp_accounting
  step = dp_accounting.PoissonSampledDpEvent(
      sampling_probability, dp_accounting.GaussianDpEvent(noise_multiplier))
  return dp_accounting.SelfComposedDpEvent(step, steps)
