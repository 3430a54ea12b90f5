"""Sound as arrays."""

import numpy as np

from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.process import decode
from toolformer_jax.media.table import Medium


def decode_audio(medium: Medium, limits: MediaLimits = MediaLimits()) -> np.ndarray:
  """Returns the sound of an audio or video file as float32 [T] from -1 to 1: mono, 16 kHz.

  Raises:
    ToolError, OSError, TimeoutError, UserError: see `process.decode`. A video without sound is a
      ToolError.
  """
  samples_T, = decode(medium, 'audio', limits).arrays
  return samples_T
