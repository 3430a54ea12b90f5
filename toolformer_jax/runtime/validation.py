"""Checks that every settings dataclass makes of its own values."""

import dataclasses
import typing
from typing import Any

from toolformer_jax.errors import UserError


def check(settings: Any, **ranges: tuple[float, float]) -> None:
  """Checks types of all fields of a dataclass, and the ranges of some.

  Configuration files know no types: '5' for 5 or a misplaced list would go unnoticed for hours.

  Args:
    settings: an instance of a dataclass whose fields are int, float, bool, str or tuple.
    **ranges: lowest and highest allowed value of a field.

  Raises:
    UserError: a value is of another type (an int will do for a float) or out of range.
  """
  kind = type(settings).__name__
  for field in dataclasses.fields(settings):
    value = getattr(settings, field.name)
    wanted = typing.get_origin(field.type) or field.type
    allowed = (int, float) if wanted is float else (wanted,)
    if type(value) not in allowed:
      raise UserError(f'{kind}.{field.name} must be of type {wanted.__name__}, not {value!r}')
  for name, (lowest, highest) in ranges.items():
    if not lowest <= getattr(settings, name) <= highest:
      raise UserError(f'{kind}.{name} must be between {lowest} and {highest}, '
                      f'not {getattr(settings, name)}')
