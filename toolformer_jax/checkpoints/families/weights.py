"""Which tensor of a checkpoint holds which of our parameters, and how to convert between them."""

import collections
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from toolformer_jax.models.decoder import BLOCKS


@dataclass(frozen=True)
class Weight:
  """A parameter of our decoder and the tensor of a checkpoint that holds it.

  Attributes:
    path: path of the parameter. Parameters of blocks have a leading axis of layers; a checkpoint
      has a tensor per layer.
    name: name of the tensor. `{}` stands for the number of the layer.
    shape: shape of the tensor.
    split: the tensor is first reshaped to this shape ...
    order: ... and then its axes are transposed to this order.
    part: (axis of `split`, index) if the tensor holds several parameters; that axis is removed
      before the transposition.
  """

  path: tuple[str, ...]
  name: str
  shape: tuple[int, ...]
  split: tuple[int, ...]
  order: tuple[int, ...]
  part: tuple[int, int] | None = None

  @property
  def of_block(self) -> bool:
    """Whether it belongs to the blocks, so that every layer has one."""
    return self.path[0] == BLOCKS

  def from_tensor(self, tensor: np.ndarray) -> np.ndarray:
    """Returns the parameter (of one layer) that a tensor of the checkpoint holds."""
    split = tensor.reshape(self.split)
    if self.part:
      split = split.take(self.part[1], self.part[0])
    return split.transpose(self.order)

  def to_tensor(self, parameters: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the tensor for one parameter, or for all parameters that share it."""
    back = np.argsort(self.order)
    whole = [parameter.transpose(back) for parameter in parameters]
    joined = np.stack(whole, self.part[0]) if self.part else whole[0]
    return joined.reshape(self.shape)

  def tensor_names(self, layers: int) -> list[str]:
    """Returns the names of its tensors: one per layer, or one."""
    return [self.name.format(i) for i in range(layers)] if self.of_block else [self.name]


def group_by_tensor(weights: Iterable[Weight]) -> list[list[Weight]]:
  """Returns `weights` in groups that share a tensor."""
  groups: dict[str, list[Weight]] = collections.defaultdict(list)
  for weight in weights:
    groups[weight.name].append(weight)
  return list(groups.values())


def plain(path: str, name: str, *shape: int) -> Weight:
  """Returns a weight whose layout is the same here and in the checkpoint."""
  return Weight(tuple(path.split('/')), name, shape, shape, tuple(range(len(shape))))


def linear(path: str, name: str, inputs: Sequence[int], outputs: Sequence[int],
           bias: bool) -> list[Weight]:
  """Returns kernel and bias of a torch.nn.Linear, [outputs, inputs]; ours is [inputs, outputs]."""
  places, n = tuple(path.split('/')), len(outputs)
  flat_in, flat_out = math.prod(inputs), math.prod(outputs)
  order = (*range(n, n + len(inputs)), *range(n))
  found = [Weight((*places, 'kernel'), f'{name}.weight', (flat_out, flat_in),
                  (*outputs, *inputs), order)]
  if bias:
    found.append(Weight((*places, 'bias'), f'{name}.bias', (flat_out,), tuple(outputs),
                        tuple(range(n))))
  return found


def norm(path: str, name: str, size: int, bias: bool) -> list[Weight]:
  """Returns scale and bias of a norm."""
  found = [plain(f'{path}/scale', f'{name}.weight', size)]
  return [*found, plain(f'{path}/bias', f'{name}.bias', size)] if bias else found
