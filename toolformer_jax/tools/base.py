"""What a tool is: a name and a function from an argument to one text."""

from dataclasses import dataclass
from typing import Protocol


class ToolError(Exception):
  """A tool has no result for its argument. The message says why, for the statistics."""


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
  """A tool: `name` as calls spell it, `version` of what determines its results."""

  name: str
  version: str

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the result for `argument` as one text; raises ToolError if there is none."""
