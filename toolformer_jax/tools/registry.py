"""Tools by name, and plain Python functions as tools."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolformer_jax import calls, errors
from toolformer_jax.tools.base import Context, Tool


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


def named_tools(names: Iterable[str], builders: Mapping[str, Callable[[], Tool]]) -> list[Tool]:
  """Returns the tools called `names`, in any case, each made by its entry in `builders`.

  The keys of `builders` are the names of the command line (`wikisearch`), which are those of the
  call text (`WikiSearch`) in lower case. A tool that is named twice is made once.

  Raises:
    UserError: a name is not among `builders`.
  """
  wanted = dict.fromkeys(name.strip().lower() for name in names)
  for name in wanted:
    if name not in builders:
      raise errors.unknown('tool', name, builders)
  return [builders[name]() for name in wanted]
