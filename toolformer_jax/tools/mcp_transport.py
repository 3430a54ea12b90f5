"""Transports for `mcp.Client` that limit what a faulty server can do.

The `stdio_client` of the SDK is not used, because it reads lines of any length, never gives up on a
server that floods its output, copies the server's stderr to ours, and does not kill the children of
a server that exits. The HTTP transport of the SDK is used, with a client that limits the size of
responses.

Needs the package `mcp`.
"""

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import anyio
import httpx2
from mcp import types
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from toolformer_jax.errors import UserError
from toolformer_jax.tools.secrets import expand, is_url

# Time for a server to exit after its input is closed, and again after each signal.
GRACE_S = 1.0
# Maximum size of a message.
_MAX_BYTES = 16 * 2**20
# Maximum number of consecutive lines of a server that are not responses.
_MAX_OTHER_LINES = 2000
_CHUNK_BYTES = 65536
_STDERR_BYTES = 2000
_MAX_STDERR_CHARS = 200
_POLL_S = 0.01
# Delays before the second and the third attempt to connect.
_PAUSES_S = (0.2, 1.0)


class StdioTransport:
  """Starts a process that reads and writes one message per line.

  Attributes:
    unavailable: what to say about a server to which no connection can be opened.
    fatal: error codes after which the connection cannot be used any more.
    fault: why the connection failed, or ''.
  """

  unavailable = 'does not start'
  fatal = (types.CONNECTION_CLOSED,)

  def __init__(self, command: Sequence[str], env: Mapping[str, str]):
    self._command, self._env = command, env
    self._stderr = b''
    self.fault = ''

  @contextlib.asynccontextmanager
  async def connect(self) -> AsyncIterator[tuple[Any, Any]]:
    """Starts the process and yields its message streams. The process is always ended."""
    process = await asyncio.create_subprocess_exec(
        *self._command, env={**get_default_environment(), **self._env}, limit=_MAX_BYTES,
        start_new_session=True, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE)
    watchdog = await _start_watchdog(process.pid)
    to_client, received = anyio.create_memory_object_stream[SessionMessage](0)
    sent, from_client = anyio.create_memory_object_stream[SessionMessage](0)
    stdin, stdout, stderr = _pipes(process)
    try:
      async with to_client, received, sent, from_client, anyio.create_task_group() as group:
        group.start_soon(self._read, stdout, to_client)
        group.start_soon(self._write, stdin, from_client)
        group.start_soon(self._read_stderr, stderr)
        yield received, sent
        group.cancel_scope.cancel()
    finally:
      with anyio.CancelScope(shield=True):
        await self._end(process)
        await _stop_watchdog(watchdog)

  def last_words(self) -> str:
    """Returns the last line of the process's stderr, which may explain a failure."""
    lines = self._stderr.decode('utf-8', 'replace').splitlines()
    line = next((line for line in reversed(lines) if line.strip()), '')
    return ''.join(filter(str.isprintable, line)).strip()[:_MAX_STDERR_CHARS]

  async def _read(self, stdout: asyncio.StreamReader, to_client: Any) -> None:
    """Forwards messages until the process exits or violates the protocol."""
    others = 0
    while others <= _MAX_OTHER_LINES:
      try:
        line = await stdout.readline()
        line.decode()
      except UnicodeDecodeError:
        return self._fail('the server wrote invalid UTF-8')
      except ValueError:
        return self._fail(f'the server wrote a line of more than {_MAX_BYTES} bytes')
      if not line:
        return self._fail('the server exited')
      others += 1
      with contextlib.suppress(ValueError):
        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        await to_client.send(SessionMessage(message))
        if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
          others = 0
    self._fail(f'the server wrote {_MAX_OTHER_LINES} lines that are not responses')

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
    """Waits for the process to exit, then kills what is left of its process group."""
    stdin, stdout, stderr = _pipes(process)
    stdin.close()
    if not self.fault:
      await _exit_of(process)
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
      # The children of the server are in the group, even if the server itself has exited.
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal_number)
      await _exit_of(process)
    # asyncio closes a pipe after it has been read to its end.
    with anyio.move_on_after(GRACE_S):
      await self._read_stderr(stderr)
      while await stdout.read(_CHUNK_BYTES):
        pass


class HttpTransport:
  """Connects to a server by streamable HTTP. Attributes are those of StdioTransport."""

  unavailable = 'does not answer'
  fatal = (types.CONNECTION_CLOSED, types.INVALID_REQUEST)  # The latter means unknown session.
  fault = ''  # The exceptions of the SDK have the reason.

  def __init__(self, url: str, headers: Mapping[str, str]):
    self._url, self._headers = url, headers

  @contextlib.asynccontextmanager
  async def connect(self) -> AsyncIterator[tuple[Any, Any]]:
    """Yields the message streams."""
    # Each call has its own time limit. A compressed body could expand to any size.
    headers = {**self._headers, 'Accept-Encoding': 'identity'}
    async with _HttpClient(timeout=None, headers=headers,
                           event_hooks={'response': [_bound_body]}) as client:
      async with streamable_http_client(
          self._url, http_client=client, max_sse_event_size=_MAX_BYTES) as streams:
        yield streams

  def last_words(self) -> str:
    """Returns ''."""
    return ''


class _HttpClient(httpx2.AsyncClient):
  """Retries a request only if it could not connect, so that no call is made twice."""

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
        raise httpx2.StreamError(f'the response has more than {_MAX_BYTES} bytes')
      yield chunk

  async def aclose(self) -> None:
    await self._stream.aclose()


async def _bound_body(response: httpx2.Response) -> None:
  response.headers.pop('Content-Encoding', None)  # It was not accepted, so it is not decoded.
  if not isinstance(response.stream, httpx2.AsyncByteStream):
    raise httpx2.StreamError('the response is not a stream of bytes')
  response.stream = _BoundedStream(response.stream)


def transport_factory(address: str, values: Mapping[str, str], where: str
                      ) -> Callable[[], StdioTransport | HttpTransport]:
  """Returns a function that creates a transport for each new connection to a server.

  Args:
    address: a URL or a command line, in which `$NAME` stands for an environment variable.
    values: HTTP headers, or more environment variables for the command.
    where: names the server in errors.

  Raises:
    UserError: it is neither, or a variable is not set.
  """
  if is_url(address):
    return lambda: HttpTransport(address, values)
  with contextlib.suppress(ValueError):
    if command := [expand(word, where) for word in shlex.split(address)]:
      return lambda: StdioTransport(command, values)
  raise UserError(f'{address!r} is not an MCP server: use a command line or a URL, http://...')


async def _start_watchdog(group: int) -> asyncio.subprocess.Process:
  """Starts a shell that kills a process group when this program ends without a word, by SIGKILL.

  It waits for a line on its standard input, whose other end only this program has. A signal for the
  death of the parent, as Linux has it, would also be sent at the end of a thread.
  """
  return await asyncio.create_subprocess_exec(
      '/bin/sh', '-c', 'read line || { sleep 1; kill -s KILL -- "-$1"; }', 'sh', str(group),
      stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
      stderr=asyncio.subprocess.DEVNULL, start_new_session=True)


def _pipes(process: asyncio.subprocess.Process
           ) -> tuple[asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamReader]:
  """Returns stdin, stdout and stderr of a process that was started with pipes."""
  if process.stdin is None or process.stdout is None or process.stderr is None:
    raise ValueError(f'process {process.pid} was started without pipes')
  return process.stdin, process.stdout, process.stderr


async def _stop_watchdog(process: asyncio.subprocess.Process) -> None:
  """Ends the watchdog of a group that is gone."""
  if stdin := process.stdin:
    with contextlib.suppress(ConnectionError):
      stdin.write(b'\n')
      await stdin.drain()
    stdin.close()
  await _exit_of(process)


async def _exit_of(process: asyncio.subprocess.Process) -> None:
  """Waits at most GRACE_S for `process` to exit, even if its pipes stay open."""
  with anyio.move_on_after(GRACE_S):
    while process.returncode is None:
      await anyio.sleep(_POLL_S)
