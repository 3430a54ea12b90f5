"""A connection to an MCP server, which is reopened after a failure.

The protocol is implemented by `mcp.Client`, which runs on the event loop of one background thread
per server. This module adds calls from any thread, a time limit for each call, and a new connection
after a failure.

Needs the package `mcp`.
"""

import asyncio
import atexit
import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import mcp
from anyio import from_thread
from mcp import types

from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import ToolError
from toolformer_jax.tools.mcp_transport import (
  GRACE_S,
  HttpTransport,
  StdioTransport,
  transport_factory,
)
from toolformer_jax.tools.secrets import expand, is_url, redactor, shown_address, variables

_MAX_PAGES = 100
_MAX_REASON_CHARS = 2000

# Without a handler, Python would print the tracebacks that the package logs for invalid answers.
logging.getLogger('mcp').addHandler(logging.NullHandler())


class Server:
  """An MCP server. The connection is opened when a call needs it. All methods are thread-safe.

  After a timeout or an error the connection is retired: the next call opens a new one, while calls
  that are in progress may finish on the old one.
  """

  def __init__(self, address: str, env: Mapping[str, str], headers: Mapping[str, str],
               start_limit_s: float, call_limit_s: float):
    """Starts the background thread. The server is started by the first call.

    The other arguments are those of `mcp.mcp_tools`.

    Raises:
      UserError: `address` is neither a URL nor a command line, or a variable is not set.
    """
    where = f'the MCP server {shown_address(address)!r}'
    if is_url(address) and env or headers and not is_url(address):
      raise UserError(f'{where}: a command takes env, and a URL takes headers')
    values = {name: expand(value, where) for name, value in {**env, **headers}.items()}
    expanded = expand(address, where) if is_url(address) else address
    self._new_transport = transport_factory(expanded, values, where)
    self.redact = redactor(
        expanded, values, variables([address, *env.values(), *headers.values()]))
    self._shown = self.redact(shown_address(address))
    self._start_limit_s, self._call_limit_s = start_limit_s, call_limit_s
    self._connections: list[_Connection] = []  # The last one is used for new calls.
    self._lock = threading.Lock()
    self._closed = False
    self._thread = from_thread.start_blocking_portal(name='mcp')
    self._portal = self._thread.__enter__()
    atexit.register(self.close)

  def tools(self) -> list[tuple[str, types.Tool]]:
    """Returns the tools of the server, each with the name and version of the server.

    Raises:
      UserError: the server cannot be started or reached in time.
    """
    try:
      connection = self._run(self._connect)
    except ConnectionError as error:
      unavailable = self._connections[-1].transport.unavailable
      raise UserError(f'the MCP server {self._shown!r} {unavailable}: '
                      f'{self.redact(str(error))}') from None
    return [(connection.identity, tool) for tool in connection.tools.values()]

  def call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
    """Calls the tool that the server calls `name`.

    Raises:
      ToolError: the server has no such tool, or rejects the arguments.
      ConnectionError: the server cannot be started or reached, or exited during the call.
      TimeoutError: the call exceeded its time limit.
      RuntimeError: this object is closed.
    """
    try:
      return self._run(self._call, name, arguments)
    except (ToolError, ConnectionError, TimeoutError) as error:
      raise type(error)(self.redact(str(error))) from None

  def close(self) -> None:
    """Stops the server and the thread. Calls in progress fail with a ConnectionError."""
    with self._lock:
      if self._closed:
        return
      self._closed = True
    self._portal.call(self._disconnect)
    self._thread.__exit__(None, None, None)
    atexit.unregister(self.close)

  def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a coroutine function in the background thread and returns its result."""
    with self._lock:
      if self._closed:
        raise RuntimeError('the MCP server is closed')
      future = self._portal.start_task_soon(function, *arguments)
    return future.result()

  async def _connect(self) -> '_Connection':
    """Returns an open connection for new calls. Opens one if the last one is retired."""
    if self._closed:
      raise ConnectionError('the server was closed')
    if not self._connections or not self._connections[-1].usable:
      living = [connection for connection in self._connections if not connection.life.done()]
      self._connections = [*living, _Connection(self._new_transport(), self._start_limit_s)]
    connection = self._connections[-1]
    await connection.opened.wait()
    if connection.failure:
      raise ConnectionError(connection.failure)
    return connection

  async def _call(self, name: str, arguments: dict[str, Any],
                  again: bool = True) -> types.CallToolResult:
    connection = await self._connect()
    if name not in connection.tools:
      raise ToolError('the server does not have the tool any more')
    try:
      return await connection.call(name, arguments, self._call_limit_s)
    except mcp.MCPError as error:
      if error.code == types.INVALID_PARAMS:
        raise ToolError(f'error: {_reason(error)}') from error
      if error.code == types.INVALID_REQUEST and connection.retired and again:
        # The server was restarted and does not know the session, so it did not run the call.
        return await self._call(name, arguments, again=False)
      fault = connection.transport.fault or f'the server failed: {_reason(error)}'
      raise ConnectionError(fault) from error
    except ValueError as error:
      raise ConnectionError('the answer is not a valid tool result') from error

  async def _disconnect(self) -> None:
    for connection in self._connections:
      connection.stop()
    await asyncio.gather(*(connection.life for connection in self._connections))


class _Connection:
  """One process or HTTP session. It must be created in the background thread.

  Attributes:
    transport: transport of the messages.
    life: the task that opens and closes the connection.
    opened: set when `tools` or `failure` is known.
    failure: why the connection could not be opened, or ended.
    retired: whether new calls need another connection.
    tools: the tools by the server's names.
    identity: name and version of the server.
  """

  def __init__(self, transport: StdioTransport | HttpTransport, start_limit_s: float):
    self.transport = transport
    self.opened = asyncio.Event()
    self.failure = ''
    self.retired = False
    self.tools: dict[str, types.Tool] = {}
    self.identity = ''
    self._start_limit_s = start_limit_s
    self._calls = 0
    self._stopping = asyncio.Event()
    self._scope = anyio.CancelScope(deadline=anyio.current_time() + start_limit_s)
    self.life = asyncio.create_task(self._live())

  @property
  def usable(self) -> bool:
    """Whether new calls can use this connection."""
    return not (self.retired or self.transport.fault or self.life.done())

  async def call(self, name: str, arguments: dict[str, Any],
                 limit_s: float) -> types.CallToolResult:
    """Calls a tool.

    Raises:
      TimeoutError: the call exceeded `limit_s`. The connection is retired.
      MCPError, ValueError: raised by `send_request`.
    """
    # Not `call_tool`, which validates the result against a schema of the server: a regular
    # expression in it could take forever.
    request = asyncio.create_task(self._session.send_request(
        types.CallToolRequest(params=types.CallToolRequestParams(name=name, arguments=arguments)),
        types.CallToolResult))
    # Not awaited after the time limit, because the SDK spends seconds on telling the server that
    # the request is cancelled. The callback keeps asyncio from logging an unretrieved exception.
    request.add_done_callback(lambda task: task.cancelled() or task.exception())
    self._calls += 1
    try:
      await asyncio.wait([request], timeout=limit_s)
      if not request.done():
        self.retired = True
        raise TimeoutError(f'no answer within {limit_s:g} seconds')
      return request.result()
    except mcp.MCPError as error:
      self.retired |= error.code in self.transport.fatal
      raise
    finally:
      request.cancel()
      self._calls -= 1
      if self.retired and not self._calls:
        self._scope.cancel()

  def stop(self) -> None:
    """Starts closing the connection. The server has GRACE_S to end its session."""
    self._stopping.set()
    self._scope.deadline = anyio.current_time() + (GRACE_S if self.opened.is_set() else 0)

  async def _live(self) -> None:
    failure = f'not within {self._start_limit_s:g} seconds'
    try:
      with self._scope:
        async with mcp.Client(self.transport.connect(), cache=None) as client:
          await self._open(client)
          await self._stopping.wait()
    except Exception as error:  # A server can cause any exception.
      failure = self.transport.fault or _reason(error)
    finally:
      words = self.transport.last_words()
      self.failure = f'{failure}; it said: {words}' if words else failure
      self.retired = True
      self.opened.set()

  async def _open(self, client: mcp.Client) -> None:
    """Lists the tools, page by page."""
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


def _reason(error: BaseException) -> str:
  while isinstance(error, BaseExceptionGroup):
    error = error.exceptions[0]
  text = str(error) or type(error).__name__
  return ' '.join(text[:_MAX_REASON_CHARS].split())
