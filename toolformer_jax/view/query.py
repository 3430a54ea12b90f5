"""The query string of a page: parsed, written as a URL, and applied to the calls of a run."""

import math
import urllib.parse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from toolformer_jax.errors import UserError, unknown
from toolformer_jax.view.data import STATES, Run, ShownCall, Text
from toolformer_jax.view.gains import ToolGains

_TAU_F = 'tau_f.'  # followed by the name of a tool
_Value = TypeVar('_Value')


@dataclass(frozen=True)
class Query:
  """What a page shows.

  Attributes:
    tau_f: threshold by tool; calls with a smaller gain are rejected.
    tool: show only calls to this tool; None for all.
    state: show only calls in this state, one of STATES; None for all.
    min_gain: show only calls with at least this gain; None for all, also those without losses.
    page: number of the page, from 1 on.
  """

  tau_f: dict[str, float]
  tool: str | None = None
  state: str | None = None
  min_gain: float | None = None
  page: int = 1

  def shows(self, call: ShownCall) -> bool:
    """Tells whether `call` passes the filters."""
    if self.tool is not None and call.record.tool != self.tool:
      return False
    if self.min_gain is not None and (call.gain is None or not call.gain >= self.min_gain):
      return False
    return self.state is None or call.state(self.tau_f[call.record.tool]) == self.state

  def url(self, page: int) -> str:
    """Returns the URL of page `page` with the same thresholds and filters."""
    fields = {'tool': self.tool, 'state': self.state, 'min_gain': self.min_gain,
              **{_TAU_F + tool: tau_f for tool, tau_f in self.tau_f.items()}, 'page': page}
    given = {name: value for name, value in fields.items() if value is not None}
    return f'/?{urllib.parse.urlencode(given)}'


@dataclass(frozen=True)
class Selection:
  """A text and the calls in it that pass the filters."""

  text: Text
  calls: tuple[ShownCall, ...]


def threshold_field(tool: str) -> str:
  """Returns the name of the form field for a tool's threshold."""
  return _TAU_F + tool


def parse(query: str, tools: Sequence[ToolGains]) -> Query:
  """Parses the part of a URL after `?`; missing thresholds are those of the run.

  Raises:
    UserError: a field is unknown, occurs twice, or has an invalid value.
  """
  try:
    pairs = urllib.parse.parse_qsl(query, max_num_fields=100)
  except ValueError as error:
    raise UserError(f'cannot parse the address: {error}') from error
  fields = dict(pairs)
  if len(fields) < len(pairs):
    raise UserError('a field occurs twice in the address')
  names = {tool.name: tool.name for tool in tools}
  chosen = _take(fields, 'tool', lambda text: _one_of('tool', text, names))
  state = _take(fields, 'state', lambda text: _one_of('state', text, STATES))
  min_gain, page = _take(fields, 'min_gain', _number), _take(fields, 'page', _page) or 1
  own = {tool.name: _take(fields, _TAU_F + tool.name, _number) for tool in tools}
  if fields:
    known = ['tool', 'state', 'min_gain', 'page', *(_TAU_F + name for name in names)]
    raise unknown('field', next(iter(fields)), known)
  tau_f = {tool.name: tool.tau_f for tool in tools}
  tau_f |= {name: value for name, value in own.items() if value is not None}
  return Query(tau_f, chosen, state, min_gain, page)


def select(run: Run, query: Query) -> list[Selection]:
  """Returns the texts with calls that pass the filters of `query`, in the order of the corpus."""
  selected = []
  for text in run.texts:
    calls = tuple(call for call in text.calls if query.shows(call))
    if calls:
      selected.append(Selection(text, calls))
  return selected


def _take(fields: dict[str, str], name: str, parse_value: Callable[[str], _Value]) -> _Value | None:
  """Removes a field from `fields` and returns its parsed value; None without that field."""
  text = fields.pop(name, None)
  try:
    return None if text is None else parse_value(text)
  except ValueError as error:
    raise UserError(f'{name}: {text!r} is not {error}') from error


def _one_of(kind: str, text: str, known: Collection[str]) -> str:
  if text not in known:
    raise unknown(kind, text, known)
  return text


def _number(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise ValueError('a number')
  return value


def _page(text: str) -> int:
  if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
    raise ValueError('the number of a page')
  return int(text)
