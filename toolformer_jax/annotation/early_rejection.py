"""What is not computed because it cannot change which calls are kept (`early_reject`).

No loss is negative. A gain is therefore at most the loss without a call: where that is below the
lowest threshold that matters, no call can be kept, and none is sampled. Of a call, the losses
without it and with its result come first; the loss with an empty result can only lower its gain.
"""

import math

from toolformer_jax.annotation.config import THRESHOLDS, AnnotationConfig

# The name of that threshold in the settings of a tool in run.json.
MIN_LOSS_NO_CALL = 'min_loss_no_call'

# Counts: positions at which no call was sampled, the texts that have some, and the tokens of losses
# with an empty result that were not computed.
REJECTED_POSITIONS, REJECTING_TEXTS = 'rejected positions', 'texts with rejected positions'
TOKENS_SKIPPED = 'tokens skipped'


def min_gain(tau_f: float, early_reject: bool) -> float:
  """Returns the gain below which the filter need not know a call's gain exactly.

  That is the lowest threshold that the run or a report uses; without `early_reject`, -inf.
  """
  return min(*THRESHOLDS, tau_f) if early_reject else -math.inf


def sampling_settings(tau_f: float, config: AnnotationConfig) -> dict[str, float]:
  """Returns what the samples of a tool depend on if positions are rejected early; {} if not."""
  least = min_loss_no_call(tau_f, config)
  return {MIN_LOSS_NO_CALL: least} if least else {}


def min_loss_no_call(tau_f: float, config: AnnotationConfig) -> float:
  """Returns the loss without a call below which no call is sampled at a position; 0 for none.

  A gain that is measured from the loss with an empty result can be larger than that.
  """
  if config.baseline_loss == 'no_result':
    return 0.0
  return max(0.0, min_gain(tau_f, config.early_reject))
