"""The calendar (paper, section 3): the date of the document, not of the wall clock."""

import datetime

from toolformer_jax import calls
from toolformer_jax.data.dates import parse_iso_date
from toolformer_jax.tools.base import Context, ToolError

# Not from the standard library, whose names follow the locale.
_WEEKDAYS = ('Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday')
_MONTHS = (
  'January', 'February', 'March', 'April', 'May', 'June',
  'July', 'August', 'September', 'October', 'November', 'December',
)


class Calendar:
  """Tells `Today is Monday, January 30, 2023.` (paper, Table 1)."""

  name = 'Calendar'
  version = '1'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the sentence that tells the document's date.

    Raises:
      ToolError: there is an argument, or no valid date (YYYY-MM-DD) in the context.
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
