"""Keeps one MCP server connected: a process of ours, or one that is reached by HTTP.

All of asyncio lives in one background thread per server. Nothing that a server says is evaluated:
its answers are data of bounded size, and the schemas that it tells are not used to check them,
since a pattern in one could keep this process busy for ever.

Needs the package `mcp`.
"""

import asyncio
import atexit
import contextlib
import logging
import math
import shlex
import threading
from collections.abc import Coroutine
from concurrent import futures
from typing import Any

import anyio
import mcp
from mcp import types

from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import ToolError
from toolformer_jax.tools.mcp_links import GRACE_S, HttpLink, StdioLink

_MAX_PAGES = 100
_CLOSE_LIMIT_S = 30.0
_MAX_REASON_CHARS = 300

# With no handler at all, Python would print the tracebacks that the package logs about bad answers.
logging.getLogger('mcp').addHandler(logging.NullHandler())


class Server:
  """An MCP server that runs when a call needs it; any number of threads may use it at once.

  A call that takes too long, or finds the server dead, retires the connection: the next call opens
  another one, while calls that are still under way on the old one may finish there.
  """

  def __init__(self, address: str, start_limit_s: float, call_limit_s: float):
    """Starts the thread, not yet the server.

    Raises:
      UserError: `address` is neither a URL nor a command line.
    """
    self._address, self._command = address, _command(address)
    self._start_limit_s, self._call_limit_s = start_limit_s, call_limit_s
    self._connections: list[_Connection] = []
    self._current: _Connection | None = None
    self._lock = threading.Lock()
    self._closed = False
    begun = threading.Event()
    self._thread = threading.Thread(
        target=lambda: asyncio.run(self._main(begun)), name='mcp', daemon=True)
    self._thread.start()
    begun.wait()
    atexit.register(self.close)

  def tools(self) -> list[tuple[str, types.Tool]]:
    """Returns the tools that the server has now, each beside what the server calls itself.

    Raises:
      UserError: it cannot be started or reached, or not in time.
    """
    try:
      connection = self._run(self._connected())
    except ConnectionError as error:
      does = 'start' if self._command else 'answer'
      raise UserError(f'the MCP server {self._address!r} does not {does}: {error}') from error
    return [(connection.identity, tool) for tool in connection.tools.values()]

  def call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
    """Returns the server's answer to a call of the tool that it calls `name`.

    Raises:
      ToolError: it has no such tool, or does not take the arguments.
      ConnectionError: it cannot be started, or ended during the call.
      TimeoutError: it took too long.
      RuntimeError: it is closed.
    """
    return self._run(self._call(name, arguments))

  def close(self) -> None:
    """Ends the server and the thread; calls that are under way fail."""
    with self._lock:
      if self._closed:
        return
      self._closed = True
    self._loop.call_soon_threadsafe(self._closing.set)
    self._thread.join(_CLOSE_LIMIT_S)
    atexit.unregister(self.close)

  def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
    """Returns the result of `work`, done in the background thread."""
    with self._lock:
      if self._closed:
        work.close()
        raise RuntimeError('the MCP server is closed')
      future = asyncio.run_coroutine_threadsafe(work, self._loop)
    try:
      return future.result()
    except futures.CancelledError as error:
      raise ConnectionError('the server was closed') from error

  async def _main(self, begun: threading.Event) -> None:
    """Lives until the server is closed, and ends what is open then."""
    self._loop = asyncio.get_running_loop()
    self._closing = asyncio.Event()
    begun.set()
    await self._closing.wait()
    await asyncio.gather(*(connection.close() for connection in self._connections))

  async def _connected(self) -> '_Connection':
    """Returns the connection, a new one if there is none that new calls may use."""
    if self._closing.is_set():
      raise ConnectionError('the server was closed')
    if not self._current or not self._current.usable:
      link = StdioLink(self._command) if self._command else HttpLink(self._address)
      self._current = _Connection(link, self._start_limit_s)
      living = [connection for connection in self._connections if not connection.life.done()]
      self._connections = [*living, self._current]
    connection = self._current
    await connection.opened.wait()
    if connection.failure:
      raise ConnectionError(connection.failure)
    return connection

  async def _call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
    try:
      return await self._call_once(name, arguments)
    except _ForgottenError:
      return await self._call_once(name, arguments)

  async def _call_once(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
    connection = await self._connected()
    if name not in connection.tools:
      raise ToolError('the server does not have the tool any more')
    try:
      return await connection.call(name, arguments, self._call_limit_s)
    except mcp.MCPError as error:
      if error.code == types.INVALID_PARAMS:
        raise ToolError(f'error: {_reason(error)}') from error
      if error.code == types.INVALID_REQUEST and connection.retired:
        raise _ForgottenError(_reason(error)) from error
      fault = connection.link.fault or f'the server failed: {_reason(error)}'
      raise ConnectionError(fault) from error
    except ValueError as error:
      raise ConnectionError('the answer is not that of a tool') from error


class _ForgottenError(ConnectionError):
  """The server, started anew, does not know the session, and so has done nothing."""


class _Connection:
  """One process or session, from its start to its end; made in the background thread.

  Attributes:
    link: what the messages go through.
    life: the task that opens it, and ends it.
    opened: set when the tools are known, or `failure` tells why they are not.
    retired: whether new calls have to take another one.
    tools: by the names that the server has for them.
    identity: what the server calls itself.
  """

  def __init__(self, link: StdioLink | HttpLink, start_limit_s: float):
    self.link = link
    self.opened = asyncio.Event()
    self.failure = ''
    self.retired = False
    self.tools: dict[str, types.Tool] = {}
    self.identity = ''
    self._start_limit_s = start_limit_s
    self._calls = 0
    self._stop = asyncio.Event()
    self._scope = anyio.CancelScope(deadline=anyio.current_time() + start_limit_s)
    self.life = asyncio.create_task(self._live())

  @property
  def usable(self) -> bool:
    """Whether a new call may take it."""
    return not (self.retired or self.link.fault or self.life.done())

  async def call(self, name: str, arguments: dict[str, Any],
                 limit_s: float) -> types.CallToolResult:
    """Returns the answer; raises what the package raises, or TimeoutError."""
    parameters = types.CallToolRequestParams(name=name, arguments=arguments)
    request = self._session.send_request(
        types.CallToolRequest(params=parameters), types.CallToolResult)
    task = asyncio.create_task(request)
    task.add_done_callback(_look)
    self._calls += 1
    try:
      await asyncio.wait([task], timeout=limit_s)
      if not task.done():
        self.retired = True
        raise TimeoutError(f'no answer within {limit_s:g} seconds')
      return task.result()
    except mcp.MCPError as error:
      self.retired |= error.code in self.link.ends
      raise
    finally:
      task.cancel()
      self._calls -= 1
      if self.retired and not self._calls:
        self._scope.cancel()

  async def close(self) -> None:
    """Ends it, politely if it is open."""
    self._stop.set()
    if self.opened.is_set():
      self._scope.deadline = anyio.current_time() + GRACE_S
    else:
      self._scope.cancel()
    await asyncio.wait([self.life])

  async def _live(self) -> None:
    failure = f'not within {self._start_limit_s:g} seconds'
    try:
      with self._scope:
        async with mcp.Client(self.link.transport(), cache=None) as client:
          await self._open(client)
          await self._stop.wait()
    except Exception as error:  # whatever a server may do
      failure = self.link.fault or _reason(error)
    finally:
      said = self.link.last_words()
      self.failure = f'{failure}; it said: {said}' if said else failure
      self.retired = True
      self.opened.set()

  async def _open(self, client: mcp.Client) -> None:
    """Asks for the tools, page by page."""
    cursor = None
    for _ in range(_MAX_PAGES):
      page = await client.list_tools(cursor=cursor)
      self.tools |= {tool.name: tool for tool in page.tools}
      cursor = page.next_cursor
      if not cursor:
        break
    else:
      raise ConnectionError(f'more than {_MAX_PAGES} pages of tools')
    info = client.server_info
    self.identity = f'{info.name} {info.version}' if info else ''
    self._session = client.session
    self._scope.deadline = math.inf
    self.opened.set()


def _command(address: str) -> list[str]:
  """Returns the words of a command line, none for a URL."""
  if address.lower().startswith(('http://', 'https://')):
    return []
  with contextlib.suppress(ValueError):
    if words := shlex.split(address):
      return words
  raise UserError(f'{address!r} is no MCP server: give a command line or an address, http://...')


def _look(task: asyncio.Task) -> None:
  """Looks at how a task has ended that nobody waits for any more: asyncio would complain."""
  if not task.cancelled():
    task.exception()


def _reason(error: BaseException) -> str:
  while isinstance(error, BaseExceptionGroup):
    error = error.exceptions[0]
  text = str(error) or type(error).__name__
  return ' '.join(text[:_MAX_REASON_CHARS].split())
