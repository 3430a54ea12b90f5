"""Renders the pages as HTML, with the templates in this folder.

Records can contain anything: the templates escape it, and the Content-Security-Policy allows no
script but that of the templates.
"""

import base64
import hashlib
import importlib.resources
import math
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jinja2
import markupsafe

from toolformer_jax.data.records import Document
from toolformer_jax.media.table import MediaTable
from toolformer_jax.view.charts import color_class, gain_histogram, threshold_slider
from toolformer_jax.view.data import STATE_NAMES, Run, ShownCall, cut_at_calls
from toolformer_jax.view.query import Query, Selection, threshold_field
from toolformer_jax.view.why import token_rows, why_address

if TYPE_CHECKING:  # it loads JAX
  from toolformer_jax.annotation.token_losses import TokenLosses

TEXTS_PER_PAGE = 50
MEDIA_PATH = '/media'


def _read(name: str) -> markupsafe.Markup:
  path = importlib.resources.files(__package__) / 'templates' / name
  return markupsafe.Markup(path.read_text('utf-8'))


def _csp_hash(content: str) -> str:
  """Returns the source expression of a policy that allows inline `content`."""
  digest = hashlib.sha256(content.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"


_STYLE, _SCRIPT = _read('style.css'), _read('page.js')
# Allows the inline style sheet and script by their hashes, media of this server, and nothing else.
CONTENT_SECURITY_POLICY = '; '.join((
    "default-src 'none'", f'style-src {_csp_hash(_STYLE)}', f'script-src {_csp_hash(_SCRIPT)}',
    "img-src 'self' data:", "media-src 'self'",
    "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"))
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader('toolformer_jax.view'), autoescape=True,
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_TEMPLATES.globals.update(
    style=_STYLE, script=_SCRIPT, state_names=STATE_NAMES, color_class=color_class,
    cut_at_calls=cut_at_calls, gain_histogram=gain_histogram, threshold_field=threshold_field,
    threshold_slider=threshold_slider)


def media_of(document: Document) -> list[tuple[str, str, str]]:
  """Returns the handle, the kind and the address of each medium of a document."""
  return [(handle, medium.kind, f'{MEDIA_PATH}?' + urllib.parse.urlencode(
      {'text': document.id, 'handle': handle})) for handle, medium in MediaTable(document.media)]


def page_count(selected: Sequence[Selection]) -> int:
  """Returns the number of pages that show `selected`: at least one, which may be empty."""
  return max(1, math.ceil(len(selected) / TEXTS_PER_PAGE))


def run_page(run: Run, query: Query, selected: Sequence[Selection], explains: bool) -> str:
  """Returns the page that `query` selects.

  Args:
    run: the run.
    query: number of the page, thresholds and filters.
    selected: texts and calls of all pages.
    explains: whether each call has a page that tells why it is kept.

  Raises:
    UserError: the position of a call is outside its text.
  """
  first = (query.page - 1) * TEXTS_PER_PAGE
  return _TEMPLATES.get_template('run.html').render(
      run=run, query=query, tool_names={tool.name: tool.name for tool in run.tools},
      pages=page_count(selected), selected=selected,
      call_count=sum(len(selection.calls) for selection in selected),
      media_of=media_of, on_page=selected[first:first + TEXTS_PER_PAGE],
      why_address=why_address if explains else None)


def why_page(run: Run, document: Document, call: ShownCall, losses: 'TokenLosses') -> str:
  """Returns the page about one call: its losses token by token."""
  offsets = run.tokenizer.character_offsets(document.text)
  return _TEMPLATES.get_template('why.html').render(
      document=document, call=call, losses=losses,
      rows=token_rows(document.text, offsets, losses),
      before=document.text[:offsets[losses.position]])


def error_page(title: str, message: str) -> str:
  """Returns a page with an error message and a link back to the run."""
  return _TEMPLATES.get_template('error.html').render(title=title, message=message)
