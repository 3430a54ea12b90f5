"""Turns Python functions into tools."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolformer_jax import calls
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context


@dataclass(frozen=True)
class FunctionTool:
  """A Tool that calls a function; created by the decorator `tool`."""

  name: str
  version: str
  function: Callable[..., str]
  takes_context: bool

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the result of the function, and raises what it raises."""
    if self.takes_context:
      return self.function(argument, context=context)
    return self.function(argument)


def tool(
    function: Callable[..., str] | None = None, *, name: str | None = None, version: str = '1'
) -> Any:
  """Turns `function(argument)`, or `function(argument, context)`, into a Tool.

  It is used as `@tool` or `@tool(name='Capital', version='2')`.

  Args:
    function: a function, or another object that can be called, from the argument of a call to its
      result.
    name: name in calls; by default the name of the function, or of the object's class. A lambda has
      none.
    version: change it when results change, so that stored results are not reused.

  Raises:
    UserError: `function` cannot be called, or the name cannot be used in calls.
  """
  if function is None:
    return functools.partial(tool, name=name, version=version)
  if not callable(function):
    raise _not_a_tool(function)
  name = name or _name_of(function)
  try:
    calls.DEFAULT_SYNTAX.linearise(calls.Call(name, ''))
  except ValueError as error:
    raise UserError(f'the tool {name!r} cannot be written in calls; give it a name of letters, '
                    "digits and underscores: tool(function, name='Name')") from error
  return FunctionTool(name, version, function, _takes_context(function))


def as_tool(given: Any) -> Any:
  """Returns a Tool object as it is, and a function or another object that can be called as a tool.

  Raises:
    UserError: it is neither.
  """
  is_tool = callable(given) and all(
      isinstance(getattr(given, name, None), str) for name in ('name', 'version'))
  if given is None:  # which `tool` takes for the decorator with arguments
    raise _not_a_tool(given)
  return given if is_tool else tool(given)


def _not_a_tool(given: Any) -> UserError:
  return UserError('a tool is a function, an object that can be called, or the name of a tool, not '
                   f'{given!r:.80}')


def _name_of(function: Callable[..., str]) -> str:
  """Returns the name of a function, or of the class of an object."""
  if isinstance(function, functools.partial):
    return _name_of(function.func)
  return getattr(function, '__name__', type(function).__name__)


def _takes_context(function: Callable[..., str]) -> bool:
  try:
    return 'context' in inspect.signature(function).parameters
  except (TypeError, ValueError):  # some functions that are written in C
    return False
