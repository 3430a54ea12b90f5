"""An HTTP server for the pages of a run, which only browsers on this machine can use."""

import contextlib
import functools
import re
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from toolformer_jax.calls import Call
from toolformer_jax.errors import ToolError, UserError
from toolformer_jax.media.content_type import content_type
from toolformer_jax.media.table import MediaTable
from toolformer_jax.view.data import LiveRun
from toolformer_jax.view.pages import (
  CONTENT_SECURITY_POLICY,
  MEDIA_PATH,
  error_page,
  page_count,
  run_page,
  why_page,
)
from toolformer_jax.view.query import parse, select
from toolformer_jax.view.why import WHY_PATH, Explain, find_call, one_at_a_time

ADDRESS = '127.0.0.1'
# A page of another site can make its own host name resolve to this machine (DNS rebinding), but the
# browser then sends that name as Host. Any port is allowed: it may be forwarded.
_LOCAL = re.compile(r'(127\.0\.0\.1|localhost|\[::1\])(:\d+)?', re.IGNORECASE)
_PLAIN = 'text/plain; charset=utf-8'
_HEADERS = {
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Security-Policy': CONTENT_SECURITY_POLICY,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}


def make_server(live_run: LiveRun, port: int, explain: Explain | None = None
                ) -> ThreadingHTTPServer:
  """Returns an HTTP server that shows `live_run` on `port`, or on any free port if that is 0.

  With `explain`, each call has a page with its losses token by token.

  Raises:
    UserError: the port is taken, or this user may not listen on it.
  """
  try:
    return ThreadingHTTPServer((ADDRESS, port), functools.partial(
        _Handler, live_run, explain and one_at_a_time(explain)))
  except OSError as error:
    raise UserError(f'cannot serve on port {port} ({error.strerror or error}); '
                    'choose another --port') from error


def respond(live_run: LiveRun, host: str, target: str, explain: Explain | None = None
            ) -> tuple[int, str]:
  """Returns the HTTP status and the page for a request.

  Args:
    live_run: the run to show.
    host: the Host header, which must name this machine.
    target: path and query string.
    explain: tells the losses of a call; None if there is no model.
  """
  if not _LOCAL.fullmatch(host):
    return 403, error_page('Forbidden', 'These pages are for browsers on the same machine.')
  path, _, fields = target.partition('?')
  if explain and path == WHY_PATH:
    return _respond_why(live_run, fields, explain)
  if path != '/':
    return 404, error_page('Not found', 'There is no such page.')
  try:
    run = live_run.read()
  except UserError as error:
    return 500, error_page('The run cannot be read', str(error))
  try:
    query = parse(fields, run.tools)
  except UserError as error:
    return 400, error_page('Bad request', str(error))
  selected = select(run, query)
  if query.page > page_count(selected):
    return 404, error_page('Not found', f'There is no page {query.page}; the last one is '
                                        f'{page_count(selected)}.')
  try:
    return 200, run_page(run, query, selected, explains=explain is not None)
  except UserError as error:
    return 500, error_page('The run cannot be shown', str(error))


def _respond_why(live_run: LiveRun, fields: str, explain: Explain) -> tuple[int, str]:
  """Returns the HTTP status and the page about the call that a query string names."""
  try:
    run = live_run.read()
    document, call = find_call(run, fields)
  except UserError as error:
    return 404, error_page('Not found', str(error))
  record = call.record
  try:
    losses = explain(document.text, Call(record.tool, record.argument, call.result),
                     record.position)
  except UserError as error:
    return 500, error_page('The call cannot be explained', str(error))
  return 200, why_page(run, document, call, losses)


def respond_medium(live_run: LiveRun, host: str, target: str) -> tuple[int, str, bytes]:
  """Returns the HTTP status, the media type and the content of a medium.

  The address has the id of a text and a handle, which is looked up among the media of the text: an
  address never names a file.

  Args:
    live_run, host, target: as for `respond`.
  """
  if not _LOCAL.fullmatch(host):
    return 403, _PLAIN, b'These media are for browsers on the same machine.'
  try:
    fields = dict(urllib.parse.parse_qsl(target.partition('?')[2], max_num_fields=10))
    text = next(text for text in live_run.read().texts if text.document.id == fields.get('text'))
    medium = MediaTable(text.document.media).resolve(fields.get('handle', ''))
    data = medium.read_bytes()
    return 200, content_type(data).mime, data
  except (StopIteration, ValueError):
    return 404, _PLAIN, b'There is no such text.'
  except (ToolError, UserError, OSError) as error:
    return 404, _PLAIN, str(error).encode('utf-8', 'replace')


class _Handler(BaseHTTPRequestHandler):
  """Answers GET and HEAD; the base class rejects all other methods."""

  server_version, sys_version = 'toolformer', ''

  def __init__(self, live_run: LiveRun, explain: Explain | None, *args: Any):
    self._live_run, self._explain = live_run, explain
    super().__init__(*args)

  def do_GET(self) -> None:
    self.wfile.write(self._answer())

  def do_HEAD(self) -> None:
    self._answer()

  def _answer(self) -> bytes:
    """Sends the head of the response and returns its body."""
    host, media_type = self.headers.get('Host', ''), _HEADERS['Content-Type']
    if self.path.startswith(f'{MEDIA_PATH}?'):
      status, media_type, body = respond_medium(self._live_run, host, self.path)
    else:
      status, page = respond(self._live_run, host, self.path, self._explain)
      body = page.encode('utf-8', 'replace')  # JSON can hold lone surrogates
    self.send_response(status)
    for name, value in {**_HEADERS, 'Content-Type': media_type,
                        'Content-Length': str(len(body))}.items():
      self.send_header(name, value)
    self.end_headers()
    return body

  def handle(self) -> None:
    with contextlib.suppress(ConnectionError):  # the browser closed the connection
      super().handle()

  def log_message(self, *args: Any) -> None:
    """Logs nothing: one user needs no access log."""
