"""What a tool is: a name and a function from an argument to one text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

# Continues each of some prompts up to the end of the line: what a model does for a tool.
Complete = Callable[[Sequence[str]], list[str]]


class ToolError(Exception):
  """A tool has no result for its argument. The message says why, for the statistics.

  Whatever else a tool raises is a failure of the moment: a crash, no network. A call that failed so
  is made again in a later run.
  """


@dataclass(frozen=True)
class Context:
  """What a tool may know about the document that it is called for.

  Attributes:
    document_id: id of the document.
    title: title of its page, so that a search never returns the page itself.
    date: ISO date (YYYY-MM-DD) on which it was written, for the calendar.
  """

  document_id: str = ''
  title: str | None = None
  date: str | None = None


class Tool(Protocol):
  """A tool: `name` as calls spell it, `version` of what determines its results.

  One that may take longer than others, since it waits for a model or has limits of its own, has
  an attribute `time_limit_s` too.
  """

  name: str
  version: str

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the result for `argument` as one text; raises ToolError if there is none."""


@runtime_checkable
class BatchTool(Tool, Protocol):
  """A tool that is faster on several calls at once: up to `batch` of them."""

  batch: int

  def call_many(
      self, arguments: Sequence[str], contexts: Sequence[Context]
  ) -> Sequence[str | Exception]:
    """Returns for each argument its result, or what `__call__` would raise."""


def call_one(tool: BatchTool, argument: str, context: Context) -> str:
  """Returns what `tool.call_many` has for a single call; raises it if it is an exception."""
  outcome, = tool.call_many([argument], [context])
  if isinstance(outcome, Exception):
    raise outcome
  return outcome
