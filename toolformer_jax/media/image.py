"""Pictures as arrays."""

from collections.abc import Sequence

import numpy as np

from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.process import decode
from toolformer_jax.media.table import Medium

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def decode_image(medium: Medium, limits: MediaLimits = MediaLimits()) -> np.ndarray:
  """Returns a picture as uint8 [H, W, 3], RGB.

  It stands upright, as its EXIF data says. What is transparent is white; of an animation it is the
  first picture.

  Raises:
    ToolError, OSError, TimeoutError, UserError: see `process.decode`.
  """
  image_HWC, = decode(medium, 'image', limits).arrays
  return image_HWC


def resize(image_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
  """Returns a picture, uint8, of another size, interpolated bicubically."""
  from PIL import Image
  resized = Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BICUBIC)
  return np.asarray(resized)


def resize_and_crop(image_HWC: np.ndarray, size: int) -> np.ndarray:
  """Returns the middle of a picture, uint8 [size, size, 3], scaled until its shorter side fits.

  Nothing but this square is computed, so that a very long picture takes no more memory.
  """
  from PIL import Image
  height, width = image_HWC.shape[:2]
  share = size / min(height, width)
  (top, bottom), (left, right) = (_middle(side, max(size, round(side * share)), size)
                                  for side in (height, width))
  resized = Image.fromarray(image_HWC).resize(
      (size, size), Image.Resampling.BICUBIC, (left, top, right, bottom))
  return np.asarray(resized)


def _middle(side: int, scaled: int, size: int) -> tuple[float, float]:
  """Returns which part of `side` pixels are the middle `size` ones after it is scaled."""
  first = (scaled - size) // 2
  return first * side / scaled, min((first + size) * side / scaled, side)


def normalize(image_HWC: np.ndarray, mean: Sequence[float] = IMAGENET_MEAN,
              std: Sequence[float] = IMAGENET_STD) -> np.ndarray:
  """Returns a picture as float32: values from 0 to 1, less the mean, by the standard deviation.

  Args:
    image_HWC: uint8.
    mean, std: of the three colours.
  """
  normal_HWC = (image_HWC / 255 - np.asarray(mean)) / np.asarray(std)
  return normal_HWC.astype(np.float32)
