"""The interface of a tool: a name, and a function from an argument to a result string."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from toolformer_jax.errors import ToolError as ToolError  # part of the interface
from toolformer_jax.media.table import MediaTable

# Continues each prompt up to the end of the line: how a tool uses a language model.
Complete = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Context:
  """What a tool knows about the document from which it is called.

  Attributes:
    document_id: id of the document.
    title: title of the document's page, which a search must not return.
    date: ISO date (YYYY-MM-DD) of the document, for the calendar.
    media: the pictures, sounds and videos of the document, by handle.
  """

  document_id: str = ''
  title: str | None = None
  date: str | None = None
  media: MediaTable = field(default_factory=MediaTable)

  def copy(self) -> 'Context':
    """Returns the same context with a media table of its own, to which tools may add."""
    return replace(self, media=self.media.copy())


class Tool(Protocol):
  """A tool.

  A slow tool may also have an attribute `time_limit_s`, in seconds, which takes precedence over
  `ExecutorConfig.time_limit_s`.
  """

  @property
  def name(self) -> str:
    """The name in calls."""
    ...

  @property
  def version(self) -> str:
    """A string that changes whenever results may change."""
    ...

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the result for `argument`. Raises ToolError if there is none."""
    ...


@runtime_checkable
class BatchTool(Tool, Protocol):
  """A tool that can answer up to `batch` calls at once."""

  @property
  def batch(self) -> int:
    """How many calls it can answer at once."""
    ...

  def call_many(
      self, arguments: Sequence[str], contexts: Sequence[Context]
  ) -> Sequence[str | Exception]:
    """Returns for each argument its result, or the exception that `__call__` would raise."""
    ...


def call_one(tool: BatchTool, argument: str, context: Context) -> str:
  """Implements `__call__` by `call_many`."""
  outcome, = tool.call_many([argument], [context])
  if isinstance(outcome, Exception):
    raise outcome
  return outcome
