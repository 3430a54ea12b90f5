"""The tools for pictures, sound and video by name, and their settings."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Self

from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.tools.base import Tool
from toolformer_jax.tools.frames import Frames, FramesConfig
from toolformer_jax.tools.ocr import OCR, OcrConfig
from toolformer_jax.tools.recognize import Recognize, RecognizeConfig
from toolformer_jax.tools.speak import Speak, SpeakConfig
from toolformer_jax.tools.transcribe import Transcribe, TranscribeConfig


@dataclass(frozen=True)
class MediaToolbox:
  """Builds these tools."""

  frames: FramesConfig = FramesConfig()
  ocr: OcrConfig = OcrConfig()
  recognize: RecognizeConfig = RecognizeConfig()
  speak: SpeakConfig = SpeakConfig()
  transcribe: TranscribeConfig = TranscribeConfig()

  def writing_to(self, folder: str) -> Self:
    """Returns a toolbox whose tools write their files to `folder`, if theirs is a relative one."""
    own = os.path.join(folder, self.speak.folder)
    return dataclasses.replace(self, speak=dataclasses.replace(self.speak, folder=own))

  def build(self, name: str, limits: MediaLimits) -> Tool:
    """Returns the tool `name`, spelled as in calls.

    Args:
      name: of the tool.
      limits: of the files that it reads.

    Raises:
      UserError: a package or program that it needs is not installed.
    """
    if name == 'OCR':
      return OCR(self.ocr, limits)
    if name == 'Recognize':
      return Recognize(self.recognize, limits)
    if name == 'Transcribe':
      return Transcribe(self.transcribe, limits)
    if name == 'Speak':
      return Speak(self.speak)
    return Frames(Recognize(self.recognize, limits), Transcribe(self.transcribe, limits),
                  self.frames, limits)
