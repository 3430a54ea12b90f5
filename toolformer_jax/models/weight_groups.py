"""Groups of inputs that share a scale in 4 bits. Importing this module does not load JAX."""

from typing import Literal

from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig

GROUP_SIZES = (32, 64, 128)


def has_groups(inputs: int, group_size: int) -> bool:
  """Returns whether a matrix with this number of inputs can have 4 bits."""
  return inputs % group_size == 0


def check_groups(config: DecoderConfig, group_size: int,
                 settings: Literal['CompressionConfig', 'QatConfig']) -> None:
  """Checks that all matrices of a model's blocks can have 4 bits.

  Args:
    config: of the model.
    group_size: number of inputs that share a scale.
    settings: the dataclass that it is a field of, for errors.

  Raises:
    UserError: the inputs of a matrix are no whole groups.
  """
  sizes = {name: inputs for name, (inputs, _) in config.modules.items()}
  for name, inputs in sizes.items():
    if not has_groups(inputs, group_size):
      fitting = [size for size in GROUP_SIZES
                 if all(has_groups(inputs, size) for inputs in sizes.values())]
      choices = (f'take {" or ".join(map(str, fitting))}' if fitting else
                 f"neither do others divide all matrices, so take {settings}.bits 'int8'")
      raise UserError(f'{settings}.group_size {group_size} does not divide the {inputs} inputs of '
                      f'the matrix {name}; {choices}')
