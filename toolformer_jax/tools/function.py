"""Turns Python functions into tools."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolformer_jax import calls
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
    function: a function from the argument of a call to its result.
    name: name in calls; by default the name of the function.
    version: change it when results change, so that stored results are not reused.

  Raises:
    ValueError: the name cannot be used in calls.
  """
  if function is None:
    return functools.partial(tool, name=name, version=version)
  name = name or function.__name__
  calls.DEFAULT_SYNTAX.linearise(calls.Call(name, ''))
  return FunctionTool(name, version, function, 'context' in inspect.signature(function).parameters)
