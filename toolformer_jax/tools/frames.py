"""Tells what is seen and said in a video, and when."""

from collections.abc import Iterator
from dataclasses import dataclass

from toolformer_jax import calls
from toolformer_jax.media.audio import decode_audio
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import Medium
from toolformer_jax.media.video import decode_frames
from toolformer_jax.runtime.validation import check
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.component import settings_hash, shortened
from toolformer_jax.tools.recognize import Recognize
from toolformer_jax.tools.transcribe import Transcribe


@dataclass(frozen=True)
class FramesConfig:
  """Settings of the tool that looks at videos.

  Attributes:
    every_s: seconds from one frame that is looked at to the next; None for the first frame of each
      scene.
    max_chars: a longer result is cut after a word.
  """

  every_s: float | None = None
  max_chars: int = 300

  def __post_init__(self) -> None:
    check(self, max_chars=(8, 100_000))
    if self.every_s is not None:
      check(self, every_s=(0.01, 86_400.0))


class Frames:
  """Answers `video 1` with times, `0.0 s: espresso 82%; 1.2 s: "Good morning."`."""

  name = 'Frames'
  time_limit_s = 180.0  # includes loading, and waiting for other calls

  def __init__(self, recognize: Recognize, transcribe: Transcribe,
               config: FramesConfig = FramesConfig(), limits: MediaLimits = MediaLimits()):
    """Creates the tool.

    Args:
      recognize: tells what is seen.
      transcribe: tells what is said.
      config: settings.
      limits: of the videos.
    """
    self.version = f'{recognize.version}-{transcribe.version}-{settings_hash(config, limits)}'
    self._recognize, self._transcribe = recognize, transcribe
    self._config, self._limits = config, limits

  def __call__(self, argument: str, context: Context) -> str:
    """Returns what is seen and said in the video with the handle `argument`, in order of time.

    Raises:
      ToolError: there is no such video, it cannot be decoded, or nothing is recognized in it.
    """
    medium = context.media.resolve(calls.unquote(argument), 'video')
    events = sorted([*self._seen(medium), *self._said(medium)], key=lambda event: event[0])
    if not events:
      raise ToolError('nothing is seen or said')
    return shortened('; '.join(f'{time_s:.1f} s: {what}' for time_s, what in events),
                     self._config.max_chars)

  def _seen(self, medium: Medium) -> Iterator[tuple[float, str]]:
    """Yields the times at which something else is seen than before."""
    earlier = None
    for frame in decode_frames(medium, self._limits, every_s=self._config.every_s):
      labels = self._recognize.labels(frame.image_HWC)
      if labels and labels[0].name != earlier:
        yield frame.time_s, str(labels[0])
      earlier = labels[0].name if labels else None

  def _said(self, medium: Medium) -> Iterator[tuple[float, str]]:
    try:
      samples_T = decode_audio(medium, self._limits)
    except ToolError:  # it has no sound
      return
    for start_s, text in self._transcribe.utterances(samples_T):
      yield start_s, f'"{text}"'
