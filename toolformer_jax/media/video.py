"""Frames of videos as arrays."""

from typing import NamedTuple

import numpy as np

from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.process import decode
from toolformer_jax.media.table import Medium


class Frame(NamedTuple):
  """A frame: the time at which it is shown, in seconds, and its picture, uint8 [H, W, 3], RGB."""

  time_s: float
  image_HWC: np.ndarray


def decode_frames(medium: Medium, limits: MediaLimits = MediaLimits(), *,
                  every_s: float | None = None) -> list[Frame]:
  """Returns frames of a video, at most `max_frames` of the limits.

  Args:
    medium: the video.
    limits: what it may cost. Frames are scaled down to `max_frame_side`, and stand upright.
    every_s: the time between two frames; None for the first frame of each scene, which differs
      much from the frame before it.

  Raises:
    ToolError, OSError, TimeoutError, UserError: see `process.decode`.
  """
  decoded = decode(medium, 'frames', limits, every_s)
  return [Frame(*pair) for pair in zip(decoded.fields['times'], decoded.arrays, strict=True)]
