"""Plain Python functions as tools."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolformer_jax import calls
from toolformer_jax.tools.base import Context


@dataclass(frozen=True)
class FunctionTool:
  """A Tool that is a plain function; made by the decorator `tool`."""

  name: str
  version: str
  function: Callable[..., str]
  takes_context: bool

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the function's result; whatever it raises is raised."""
    if self.takes_context:
      return self.function(argument, context=context)
    return self.function(argument)


def tool(
    function: Callable[..., str] | None = None, *, name: str | None = None, version: str = '1'
) -> Any:
  """Turns `function(argument)`, or `function(argument, context)`, into a Tool.

  Written `@tool` or `@tool(name='Capital', version='2')`. The name, by default the function's, is
  how calls spell it; a new version tells that results may differ from those stored before.

  Raises:
    ValueError: no call can be written with this name.
  """
  if function is None:
    return functools.partial(tool, name=name, version=version)
  name = name or function.__name__
  calls.DEFAULT_SYNTAX.linearise(calls.Call(name, ''))
  return FunctionTool(name, version, function, 'context' in inspect.signature(function).parameters)
