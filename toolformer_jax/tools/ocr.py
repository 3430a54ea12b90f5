"""Reads the text in a picture, with the models of PP-OCR (RapidOCR and ONNX Runtime)."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from toolformer_jax import calls
from toolformer_jax.media.image import decode_image, resize
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.runtime.validation import check
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.component import settings_hash, shortened, versions_of

# Lines of text are searched in a copy of a picture whose longer side has at most this many pixels.
_SEARCHED = 960
_NARROW = 100  # RapidOCR cannot scale a picture whose sides have a larger ratio


@dataclass(frozen=True)
class OcrConfig:
  """Settings of the tool that reads the text in pictures.

  Attributes:
    max_chars: a longer text is cut after a word.
    least_confidence: pieces of text that are read with less confidence are left out.
    least_side: smaller pictures are enlarged until their longer side has as many pixels. With more,
      single short numbers are found better, as in charts, and a call takes longer.
  """

  max_chars: int = 300
  least_confidence: float = 0.5
  least_side: int = 736

  def __post_init__(self) -> None:
    check(self, max_chars=(8, 100_000), least_confidence=(0.0, 1.0), least_side=(1, 4000))


class Piece(NamedTuple):
  """A piece of text, and where it stands: left, top and bottom edge in pixels."""

  text: str
  left: float
  top: float
  bottom: float


class OCR:
  """Answers `image 1` with the text in that picture, `TOTAL 84.00; Thank you`."""

  name = 'OCR'
  time_limit_s = 60.0  # includes loading, and waiting for other calls

  def __init__(self, config: OcrConfig = OcrConfig(), limits: MediaLimits = MediaLimits()):
    """Creates the tool; the models are loaded by its first call.

    Args:
      config: settings.
      limits: of the pictures.

    Raises:
      UserError: its packages are not installed.
    """
    packages = versions_of('OCR', ('rapidocr', 'onnxruntime', 'pillow'))
    self.version = f'{packages}-{settings_hash(config, limits)}'
    self._config, self._limits = config, limits
    self._turn = threading.Lock()
    self._engine: Any = None

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the text in the picture with the handle `argument`.

    Raises:
      ToolError: there is no such picture, it cannot be decoded, or no text is found in it.
    """
    medium = context.media.resolve(calls.unquote(argument), 'image')
    text = text_of(self.read(decode_image(medium, self._limits)))
    if not text:
      raise ToolError('no text in the picture')
    return shortened(text, self._config.max_chars)

  def read(self, image_HWC: np.ndarray) -> list[Piece]:
    """Returns the pieces of text in a picture, uint8 [H, W, 3], RGB; places are in its pixels
    after small ones are enlarged.

    Raises:
      ToolError: the picture is too narrow.
    """
    if max(image_HWC.shape[:2]) > _NARROW * min(image_HWC.shape[:2]):
      raise ToolError('the picture is too narrow')
    image_HWC = _enlarged(image_HWC, self._config.least_side)
    with self._turn:
      if self._engine is None:
        self._engine = _load(max(_SEARCHED, self._config.least_side))
      found = self._engine(np.ascontiguousarray(image_HWC[..., ::-1]),
                           text_score=self._config.least_confidence)
    if found.txts is None or found.boxes is None:
      return []
    return [Piece(text, float(box[:, 0].min()), float(box[:, 1].min()), float(box[:, 1].max()))
            for text, box in zip(found.txts, found.boxes, strict=True)]


def _load(searched: int) -> Any:
  """Loads the models, which are inside the package. What the package logs is dropped."""
  logging.getLogger('RapidOCR').addHandler(logging.NullHandler())
  from rapidocr import RapidOCR  # an optional package
  return RapidOCR(params={'Global.log_level': 'critical', 'Det.limit_type': 'max',
                          'Det.limit_side_len': searched})


def _enlarged(image_HWC: np.ndarray, side: int) -> np.ndarray:
  height, width = image_HWC.shape[:2]
  share = side / max(height, width)
  if share <= 1:
    return image_HWC
  return resize(image_HWC, max(1, round(height * share)), max(1, round(width * share)))


def text_of(pieces: Sequence[Piece]) -> str:
  """Returns the pieces of text as they are read: lines from top to bottom, each from the left.

  Between two lines is `; `, and a space before one that begins with a small letter, which goes on
  with the sentence of the line above.
  """
  text = ''
  for line in _lines(pieces):
    words = ' '.join(' '.join(piece.text for piece in line).split())
    separator = ' ' if words[:1].islower() else '; '
    text += (separator if text and words else '') + words
  return text


def _lines(pieces: Sequence[Piece]) -> list[list[Piece]]:
  """Returns the pieces by line: the middle of each is between top and bottom of the first."""
  lines: list[list[Piece]] = []
  for piece in sorted(pieces, key=lambda piece: piece.top + piece.bottom):
    first = lines[-1][0] if lines else None
    if first and first.top < (piece.top + piece.bottom) / 2 < first.bottom:
      lines[-1].append(piece)
    else:
      lines.append([piece])
  return [sorted(line, key=lambda piece: piece.left) for line in lines]
