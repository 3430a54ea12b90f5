"""Checks the types and ranges of the fields of configuration dataclasses."""

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from toolformer_jax.errors import UserError


def check(config: Any, **ranges: tuple[float, float]) -> None:
  """Checks the types of all fields of a dataclass, and the ranges of some.

  Gin files have no types: '5' in place of 5 or a misplaced list would go unnoticed for hours.

  Args:
    config: an instance of a dataclass whose fields are int, float, bool, str, tuple, a mapping, or
      a Literal of strings; or a union of classes.
    **ranges: the lowest and highest allowed value of a field.

  Raises:
    UserError: a value has another type (an int passes for a float), is none of the values of a
      Literal, is infinite or not a number, or is out of range.
  """
  name_of_config = type(config).__name__
  for field in dataclasses.fields(config):
    _check_type(f'{name_of_config}.{field.name}', field.type, getattr(config, field.name))
  for name, (lowest, highest) in ranges.items():
    if not lowest <= getattr(config, name) <= highest:
      raise UserError(f'{name_of_config}.{name} must be between {lowest} and {highest}, '
                      f'not {getattr(config, name)}')


def _check_type(name: str, expected: Any, value: Any) -> None:
  origin = typing.get_origin(expected) or expected
  if origin is typing.Literal:
    choices = typing.get_args(expected)
    if value not in choices:
      raise UserError(f'{name} must be {" or ".join(map(repr, choices))}, not {value!r}')
  elif origin is types.UnionType:
    if not isinstance(value, expected):
      names = ' or '.join(getattr(one, '__name__', str(one)) for one in typing.get_args(expected))
      raise UserError(f'{name} must be {names.replace("NoneType", "None")}, not {value!r}'
                      f'{_gin_hint(typing.get_args(expected), value)}')
  elif origin is Mapping:
    if not isinstance(value, Mapping):
      raise UserError(f'{name} must be a mapping such as {{}}, not {value!r}')
  elif type(value) not in ((int, float) if origin is float else (origin,)):
    raise UserError(f'{name} must be of type {origin.__name__}, not {value!r}')
  elif origin is float and not abs(value) <= sys.float_info.max:  # an int can be larger
    raise UserError(f'{name} must be a finite number, not {str(value):.30}')


def _gin_hint(classes: tuple[type, ...], value: Any) -> str:
  """Returns how one of the configurations in `classes` is bound: people forget the parentheses."""
  configs = [one.__name__ for one in classes if dataclasses.is_dataclass(one)]
  given = value.__name__ if isinstance(value, type) else value
  return f'; in gin: @{given if given in configs else configs[0]}()' if configs else ''
