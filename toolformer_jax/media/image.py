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


def resize_shorter_side(image_HWC: np.ndarray, size: int) -> np.ndarray:
  """Returns a picture whose shorter side has `size` pixels, in the same proportions."""
  height, width = image_HWC.shape[:2]
  share = size / min(height, width)
  return resize(image_HWC, max(size, round(height * share)), max(size, round(width * share)))


def center_crop(image_HWC: np.ndarray, size: int) -> np.ndarray:
  """Returns the square of `size` pixels in the middle of a picture that is at least that large.

  Raises:
    ValueError: it is smaller.
  """
  height, width = image_HWC.shape[:2]
  if min(height, width) < size:
    raise ValueError(f'a picture of {height} x {width} pixels has no square of {size}')
  top, left = (height - size) // 2, (width - size) // 2
  return image_HWC[top:top + size, left:left + size]


def normalize(image_HWC: np.ndarray, mean: Sequence[float] = IMAGENET_MEAN,
              std: Sequence[float] = IMAGENET_STD) -> np.ndarray:
  """Returns a picture as float32: values from 0 to 1, less the mean, by the standard deviation.

  Args:
    image_HWC: uint8.
    mean, std: of the three colours.
  """
  normal_HWC = (image_HWC / 255 - np.asarray(mean)) / np.asarray(std)
  return normal_HWC.astype(np.float32)
