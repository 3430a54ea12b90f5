"""Transports for `mcp.Client` that bound what a server can do: to a process, and over HTTP.

The SDK's `stdio_client` is replaced: it reads lines of any length, never gives up on a server that
floods its output, copies the server's stderr to ours, and leaves the children of a server that
exits by itself running. The SDK's HTTP transport is used, with a client that bounds its bodies.

Needs the package `mcp`.
"""

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import httpx2
from mcp import types
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from toolformer_jax.errors import UserError

# How long a server may take to exit after its input is closed, and again after each signal.
GRACE_S = 1.0
# Of one message.
_MAX_BYTES = 16 * 2**20
# Consecutive lines on a server's output that are no response.
_MAX_OTHER_LINES = 2000
_CHUNK_BYTES = 65536
_STDERR_BYTES = 2000
_MAX_STDERR_CHARS = 200
_POLL_S = 0.01
# Before the second and the third attempt to connect.
_PAUSES_S = (0.2, 1.0)


class StdioTransport:
  """Starts a process that reads and writes one message per line.

  Attributes:
    unavailable: what is wrong with a server that no connection can be opened to.
    fatal: codes of errors after which the connection cannot be used any more.
    fault: why the connection failed; '' if it has not.
  """

  unavailable = 'does not start'
  fatal = (types.CONNECTION_CLOSED,)

  def __init__(self, command: Sequence[str]):
    self._command = command
    self._stderr = b''
    self.fault = ''

  @contextlib.asynccontextmanager
  async def connect(self) -> AsyncIterator[tuple[Any, Any]]:
    """Starts the process and yields the streams of messages; ends the process in any case."""
    process = await asyncio.create_subprocess_exec(
        *self._command, env=get_default_environment(), limit=_MAX_BYTES, start_new_session=True,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE)
    to_client, received = anyio.create_memory_object_stream(0)
    sent, from_client = anyio.create_memory_object_stream(0)
    try:
      async with to_client, received, sent, from_client, anyio.create_task_group() as group:
        group.start_soon(self._read, process.stdout, to_client)
        group.start_soon(self._write, process.stdin, from_client)
        group.start_soon(self._read_stderr, process.stderr)
        yield received, sent
        group.cancel_scope.cancel()
    finally:
      with anyio.CancelScope(shield=True):
        await self._end(process)

  def last_words(self) -> str:
    """Returns the last line of the process's stderr, which may explain why it failed."""
    lines = self._stderr.decode('utf-8', 'replace').splitlines()
    line = next((line for line in reversed(lines) if line.strip()), '')
    return ''.join(filter(str.isprintable, line)).strip()[:_MAX_STDERR_CHARS]

  async def _read(self, stdout: asyncio.StreamReader, to_client: Any) -> None:
    """Passes messages on until the process ends or breaks the protocol for good."""
    others = 0
    while others <= _MAX_OTHER_LINES:
      try:
        line = await stdout.readline()
        line.decode()
      except UnicodeDecodeError:
        return self._fail('the server wrote what is not UTF-8')
      except ValueError:
        return self._fail(f'the server wrote a line of more than {_MAX_BYTES} bytes')
      if not line:
        return self._fail('the server has ended')
      others += 1
      with contextlib.suppress(ValueError):
        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        await to_client.send(SessionMessage(message))
        if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
          others = 0
    self._fail(f'the server wrote {_MAX_OTHER_LINES} lines that answer nothing')

  def _fail(self, fault: str) -> None:
    self.fault = fault
    raise ConnectionError(fault)

  async def _write(self, stdin: asyncio.StreamWriter, from_client: Any) -> None:
    async for item in from_client:
      stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b'\n')
      await stdin.drain()

  async def _read_stderr(self, stderr: asyncio.StreamReader) -> None:
    while chunk := await stderr.read(_CHUNK_BYTES):
      self._stderr = (self._stderr + chunk)[-_STDERR_BYTES:]

  async def _end(self, process: asyncio.subprocess.Process) -> None:
    """Lets the process exit by itself, then kills what is left of its process group."""
    process.stdin.close()
    if not self.fault:
      await _exit_of(process)
    for farewell in (signal.SIGTERM, signal.SIGKILL):
      # The group has the server's children, even if the server itself has exited.
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, farewell)
      await _exit_of(process)
    # asyncio closes the pipes when they have been read to their end.
    with anyio.move_on_after(GRACE_S):
      await self._read_stderr(process.stderr)
      while await process.stdout.read(_CHUNK_BYTES):
        pass


class HttpTransport:
  """Reaches a server by streamable HTTP; attributes as those of StdioTransport."""

  unavailable = 'does not answer'
  fatal = (types.CONNECTION_CLOSED, types.INVALID_REQUEST)  # the latter for an unknown session
  fault = ''  # The errors of the SDK say why.

  def __init__(self, url: str):
    self._url = url

  @contextlib.asynccontextmanager
  async def connect(self) -> AsyncIterator[tuple[Any, Any]]:
    """Yields the streams of messages."""
    # Every call has its own time limit. A compressed body could expand to any size.
    async with _HttpClient(timeout=None, headers={'Accept-Encoding': 'identity'},
                           event_hooks={'response': [_bound_body]}) as client:
      async with streamable_http_client(
          self._url, http_client=client, max_sse_event_size=_MAX_BYTES) as streams:
        yield streams

  def last_words(self) -> str:
    """Returns ''."""
    return ''


class _HttpClient(httpx2.AsyncClient):
  """Repeats a request only if no connection was made, so that no call is made twice."""

  async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
    for pause in _PAUSES_S:
      with contextlib.suppress(httpx2.ConnectError):
        return await super().send(request, **options)
      await asyncio.sleep(pause)
    return await super().send(request, **options)


class _BoundedStream(httpx2.AsyncByteStream):

  def __init__(self, stream: httpx2.AsyncByteStream):
    self._stream = stream

  async def __aiter__(self) -> AsyncIterator[bytes]:
    left = _MAX_BYTES
    async for chunk in self._stream:
      left -= len(chunk)
      if left < 0:
        raise httpx2.StreamError(f'an answer of more than {_MAX_BYTES} bytes')
      yield chunk

  async def aclose(self) -> None:
    await self._stream.aclose()


async def _bound_body(response: httpx2.Response) -> None:
  response.headers.pop('Content-Encoding', None)  # What was not asked for is not expanded.
  response.stream = _BoundedStream(response.stream)


def transport_factory(address: str) -> Callable[[], StdioTransport | HttpTransport]:
  """Returns what makes a transport for each new connection to a server.

  Args:
    address: a URL, or a command line.

  Raises:
    UserError: it is neither.
  """
  if address.lower().startswith(('http://', 'https://')):
    return lambda: HttpTransport(address)
  with contextlib.suppress(ValueError):
    if command := shlex.split(address):
      return lambda: StdioTransport(command)
  raise UserError(f'{address!r} is no MCP server: give a command line or an address, http://...')


async def _exit_of(process: asyncio.subprocess.Process) -> None:
  """Waits at most GRACE_S for the exit of `process`, even if others keep its pipes open."""
  with anyio.move_on_after(GRACE_S):
    while process.returncode is None:
      await anyio.sleep(_POLL_S)
