"""The pages as HTML: a run, or what was wrong with an address. Pure functions of what they show."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from toolformer_jax.data.records import ExecutedCall, ScoredCall
from toolformer_jax.view.assets import SCRIPT, STYLE
from toolformer_jax.view.charts import colour, histogram, slider
from toolformer_jax.view.data import (
    FAILED,
    KEPT,
    PENDING,
    REJECTED,
    Run,
    ShownCall,
    Stage,
    ToolGains,
    cut_at_calls,
)
from toolformer_jax.view.query import Query, Selection, threshold_field

TEXTS_PER_PAGE = 50
_STATE_NAMES = {KEPT: 'kept', REJECTED: 'rejected', FAILED: 'no result', PENDING: 'not scored yet'}


def page_count(selected: Sequence[Selection]) -> int:
  """Returns how many pages show `selected`: at least one, which says that there is nothing."""
  return max(1, math.ceil(len(selected) / TEXTS_PER_PAGE))


def run_page(run: Run, query: Query, selected: Sequence[Selection]) -> str:
  """Returns the page that `query` asks for.

  Args:
    run: the whole run.
    query: says which page.
    selected: the texts and calls of all pages.

  Raises:
    UserError: a call lies outside its text.
  """
  first = (query.page - 1) * TEXTS_PER_PAGE
  calls = sum(len(selection.calls) for selection in selected)
  navigation = _navigation(query, page_count(selected))
  return _page(run.name, ''.join((
      f'<header><h1>{escape(run.name)}</h1>{_stages(run.stages)}</header>',
      f'<form method="get" action="/" autocomplete="off">{_panels(run, query)}',
      f'{_filters(run, query)}</form>',
      f'<main><p><strong>{calls} calls</strong> in {len(selected)} of {len(run.texts)} texts. ',
      f'{_legend()}</p>{navigation}',
      *(_article(run, query, selection)
        for selection in selected[first:first + TEXTS_PER_PAGE]),
      f'{navigation}</main>')))


def error_page(title: str, message: str) -> str:
  """Returns a page that says what is wrong, with the way back."""
  return _page(title, f'<h1>{escape(title)}</h1><p>{escape(message)}</p>'
                      '<p><a href="/">Back to the run</a></p>')


def _page(title: str, body: str) -> str:
  return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
          '<meta name="viewport" content="width=device-width, initial-scale=1">'
          f'<title>{escape(title)}</title><style>{STYLE}</style></head>\n'
          f'<body>{body}<script>{SCRIPT}</script></body></html>\n')


def _stages(stages: Iterable[Stage]) -> str:
  items = (f'<li>{escape(stage.name)}: {stage.chunks} chunks'
           f'{"" if stage.is_complete else ", not complete"}</li>' for stage in stages)
  return f'<ul class="stages">{"".join(items)}</ul>'


def _panels(run: Run, query: Query) -> str:
  return ''.join(_panel(tool, query.tau_f[tool.name]) for tool in run.tools)


def _panel(tool: ToolGains, tau_f: float) -> str:
  """Returns the gains of a tool: histogram, threshold and what it keeps."""
  name = escape(tool.name)
  if not tool.calls:
    return (f'<section class="panel"><h2>{name} <span class="soft">no call has losses yet</span>'
            '</h2></section>')
  steps, step = slider(tool, tau_f)
  return (
      f'<section class="panel" data-tool="{name}" data-steps="{escape(steps)}" data-step="{step}">'
      f'<h2>{name} <span class="soft">gains of {len(tool.calls)} scored calls, in nats; '
      f'the run keeps those of {tool.tau_f:g} or more</span></h2>{histogram(tool, tau_f)}'
      f'<input type="range" min="0" hidden aria-label="threshold of {name}"><div class="controls">'
      f'<label>threshold {_number_field(threshold_field(tool.name), tau_f)}</label>'
      f'<span>keeps <output>{tool.kept_calls(tau_f)}</output> calls in '
      f'<output>{tool.kept_texts(tau_f)}</output> texts</span>{_cap(tool)}</div></section>')


def _cap(tool: ToolGains) -> str:
  """Returns a note where merging may keep fewer texts than a threshold does."""
  if len(tool.texts) <= tool.max_texts:
    return ''
  return f'<span class="soft">before all but {tool.max_texts:.0f} texts are left out</span>'


def _number_field(name: str, value: float | None) -> str:
  text = '' if value is None else repr(value)
  return f'<input type="number" step="any" name="{escape(name)}" value="{text}">'


def _filters(run: Run, query: Query) -> str:
  tools = {tool.name: tool.name for tool in run.tools}
  return (
      '<div class="panel controls">'
      f'<label>calls to {_choice("tool", "all tools", tools, query.tool)}</label>'
      f'<label>that are {_choice("state", "in any state", _STATE_NAMES, query.state)}</label>'
      f'<label>with a gain of at least {_number_field("min_gain", query.min_gain)}</label>'
      '<button>Show</button></div>')


def _choice(name: str, everything: str, options: Mapping[str, str], chosen: str | None) -> str:
  marked = ((value, text, ' selected' if value == chosen else '')
            for value, text in {'': everything, **options}.items())
  items = (f'<option value="{escape(value)}"{mark}>{escape(text)}</option>'
           for value, text, mark in marked)
  return f'<select name="{name}">{"".join(items)}</select>'


def _legend() -> str:
  samples = ((KEPT, 1.5), (KEPT, 0.3), (REJECTED, 0.1), (REJECTED, -1.5))
  chips = (f'<span class="call {state} {colour(gain)}"><b>{gain:+.2f}</b>{state}</span>'
           for state, gain in samples)
  return f'{"".join(chips)}<span class="call {FAILED}">no result, or not scored yet</span>'


def _navigation(query: Query, pages: int) -> str:
  if pages == 1:
    return ''
  def link(page, text):
    return f'<a href="{escape(query.address(page))}">{text}</a>' if 1 <= page <= pages else text
  return (f'<nav>{link(query.page - 1, "Previous")}<span>page {query.page} of {pages}</span>'
          f'{link(query.page + 1, "Next")}</nav>')


def _article(run: Run, query: Query, selection: Selection) -> str:
  """Returns a text with its calls in place, and a table of their losses."""
  document = selection.text.document
  pieces = cut_at_calls(document.text, selection.calls, run.tokenizer)
  shown = ''.join(escape(piece) if isinstance(piece, str) else _chip(piece, query)
                  for piece in pieces)
  about = ' · '.join(filter(None, (document.title, document.date, document.source)))
  return (f'<article><h2>{escape(document.id)} <span class="soft">{escape(about)}</span></h2>'
          f'<p class="text" dir="auto">{shown}</p>{_table(selection.calls, query)}</article>\n')


def _chip(call: ShownCall, query: Query) -> str:
  spelled = escape(_spelled(call))
  gain = '' if call.gain is None else f'<b>{_gain(call)}</b>'
  return (f'<span class="call {_classes(call, query)}"{_threshold_data(call)} title="{spelled}">'
          f'{gain}{spelled}</span>')


def _spelled(call: ShownCall) -> str:
  record = call.record
  result = record.result if isinstance(record, ExecutedCall) else None
  answer = '' if result is None else f' → {result}'
  return f'[{record.tool}({record.argument}){answer}]'


def _classes(call: ShownCall, query: Query) -> str:
  state = call.state(query.tau_f[call.record.tool])
  return state if call.gain is None else f'{state} {colour(call.gain)}'


def _threshold_data(call: ShownCall) -> str:
  """Returns what the script needs of a call that is kept or not, as the threshold is."""
  if not call.is_best:
    return ''
  return f' data-tool="{escape(call.record.tool)}" data-gain="{call.gain!r}"'


def _gain(call: ShownCall) -> str:
  """Returns the gain as text; of a call whose second loss was not needed it is a bound."""
  is_known = isinstance(call.record, ScoredCall) and call.record.loss_call is not None
  return f'{"" if is_known else "≤ "}{call.gain:+.2f}'


def _table(calls: Iterable[ShownCall], query: Query) -> str:
  rows = ''.join(_row(call, query) for call in calls)
  heads = ''.join(f'<th class="number">{head}</th>' for head in (
      'start prob.', 'loss: no call', 'no result', 'result', 'gain'))
  return ('<div class="scroll"><table><thead><tr><th>call</th>'
          f'{heads}<th></th></tr></thead><tbody>{rows}</tbody></table></div>')


def _row(call: ShownCall, query: Query) -> str:
  record, numbers = call.record, ['', '', '', '']
  if isinstance(record, ScoredCall):
    losses = record.loss_no_call, record.loss_call, record.loss_result
    numbers = [*('–' if loss is None else f'{loss:.2f}' for loss in losses), _gain(call)]
  cells = ''.join(f'<td class="number">{number}</td>'
                  for number in (f'{record.probability:.3f}', *numbers))
  return (f'<tr><td>{escape(_spelled(call))}</td>{cells}'
          f'<td class="state {_classes(call, query)}"{_threshold_data(call)}>'
          f'{escape(_verdict(call, query))}</td></tr>')


def _verdict(call: ShownCall, query: Query) -> str:
  """Returns in words what became of a call."""
  tau_f = query.tau_f[call.record.tool]
  state = call.state(tau_f)
  if state == FAILED:
    return f'no result: {call.record.failure}'
  if state == PENDING and not isinstance(call.record, ExecutedCall):
    return 'not executed yet'
  if state == REJECTED and call.gain >= tau_f:
    return 'rejected: another call gains more here'
  return _STATE_NAMES[state]
