"""Limits of the files that tools may decode."""

from dataclasses import dataclass

from toolformer_jax.runtime.validation import check


@dataclass(frozen=True)
class MediaLimits:
  """What a file may cost. One beyond a limit gives no result; the run goes on.

  Attributes:
    max_bytes: size of a file.
    max_pixels: size of a picture, and of a frame of a video.
    max_seconds: length of a sound or video.
    max_frames: how many frames of a video are looked at by a tool.
    max_frame_side: frames of a video are scaled down until neither side has more pixels.
    decoding_s: seconds after which the process that decodes is killed.
    decoding_bytes: memory of that process, where the system can limit it.
  """

  max_bytes: int = 100_000_000
  max_pixels: int = 50_000_000
  max_seconds: float = 600.0
  max_frames: int = 64
  max_frame_side: int = 1024
  decoding_s: float = 8.0
  decoding_bytes: int = 3_000_000_000

  def __post_init__(self) -> None:
    check(self, max_bytes=(1, 10**12), max_pixels=(1, 10**9), max_seconds=(0.001, 86_400.0),
          max_frames=(1, 10_000), max_frame_side=(16, 10_000), decoding_s=(0.1, 3600.0),
          decoding_bytes=(500_000_000, 10**13))
