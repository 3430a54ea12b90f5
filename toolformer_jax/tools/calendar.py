"""The calendar (paper, section 3). It returns the date of the document, not today's."""

import datetime

from toolformer_jax import calls
from toolformer_jax.data.dates import parse_iso_date
from toolformer_jax.tools.base import Context, ToolError

# The names in the standard library depend on the locale.
_WEEKDAYS = ('Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday')
_MONTHS = (
  'January', 'February', 'March', 'April', 'May', 'June',
  'July', 'August', 'September', 'October', 'November', 'December',
)


class Calendar:
  """Returns `Today is Monday, January 30, 2023.` (paper, Table 1)."""

  name = 'Calendar'
  version = '1'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the date of the document.

    Raises:
      ToolError: the argument is not empty, or the context has no valid date (YYYY-MM-DD).
    """
    if calls.unquote(argument):
      raise ToolError('the calendar takes no argument')
    date = _parse(context.date)
    weekday, month = _WEEKDAYS[date.weekday()], _MONTHS[date.month - 1]
    return f'Today is {weekday}, {month} {date.day}, {date.year}.'


def _parse(text: str | None) -> datetime.date:
  if text is None:
    raise ToolError('the document has no date')
  date = parse_iso_date(text)
  if date is None:
    raise ToolError(f'not a date: {text}')
  return date
