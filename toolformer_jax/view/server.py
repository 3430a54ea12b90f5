"""An HTTP server for the pages of a run, which only browsers on this machine can use."""

import contextlib
import functools
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.view.data import LiveRun
from toolformer_jax.view.pages import CONTENT_SECURITY_POLICY, error_page, page_count, run_page
from toolformer_jax.view.query import parse, select

ADDRESS = '127.0.0.1'
# A page of another site can make its own host name resolve to this machine (DNS rebinding), but the
# browser then sends that name as Host. Any port is allowed: it may be forwarded.
_LOCAL = re.compile(r'(127\.0\.0\.1|localhost|\[::1\])(:\d+)?', re.IGNORECASE)
_HEADERS = {
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Security-Policy': CONTENT_SECURITY_POLICY,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}


def make_server(live_run: LiveRun, port: int) -> ThreadingHTTPServer:
  """Returns an HTTP server that shows `live_run` on `port`, or on any free port if that is 0.

  Raises:
    UserError: the port is taken, or this user may not listen on it.
  """
  try:
    return ThreadingHTTPServer((ADDRESS, port), functools.partial(_Handler, live_run))
  except OSError as error:
    raise UserError(f'cannot serve on port {port} ({error.strerror or error}); '
                    'choose another --port') from error


def respond(live_run: LiveRun, host: str, target: str) -> tuple[int, str]:
  """Returns the HTTP status and the page for a request.

  Args:
    live_run: the run to show.
    host: the Host header, which must name this machine.
    target: path and query string.
  """
  if not _LOCAL.fullmatch(host):
    return 403, error_page('Forbidden', 'These pages are for browsers on the same machine.')
  path, _, fields = target.partition('?')
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
    return 200, run_page(run, query, selected)
  except UserError as error:
    return 500, error_page('The run cannot be shown', str(error))


class _Handler(BaseHTTPRequestHandler):
  """Answers GET and HEAD; the base class rejects all other methods."""

  server_version, sys_version = 'toolformer', ''

  def __init__(self, live_run: LiveRun, *args: Any):
    self._live_run = live_run
    super().__init__(*args)

  def do_GET(self) -> None:
    self.wfile.write(self._answer())

  def do_HEAD(self) -> None:
    self._answer()

  def _answer(self) -> bytes:
    """Sends the head of the response and returns its body."""
    status, page = respond(self._live_run, self.headers.get('Host', ''), self.path)
    body = page.encode('utf-8', 'replace')  # JSON can hold lone surrogates
    self.send_response(status)
    for name, value in {**_HEADERS, 'Content-Length': str(len(body))}.items():
      self.send_header(name, value)
    self.end_headers()
    return body

  def handle(self) -> None:
    with contextlib.suppress(ConnectionError):  # the browser closed the connection
      super().handle()

  def log_message(self, *args: Any) -> None:
    """Logs nothing: one user needs no access log."""
