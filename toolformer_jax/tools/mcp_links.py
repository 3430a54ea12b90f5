"""What messages to and from an MCP server go through: the pipes of a process, or HTTP.

The package's own pipes read a line of any length into memory and print what a server writes to its
standard error; these bound the one and keep the last of the other. Needs the package `mcp`.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import httpx2
from mcp import types
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

# Of one answer.
MAX_BYTES = 16 * 2**20
# How long a server may take to end by itself, and again after each way of telling it.
GRACE_S = 1.0
# Lines on its standard output, one after the other, that answer nothing.
_MAX_STRAYS = 2000
_PIECE_BYTES = 65536
_WORDS_BYTES = 2000
_MAX_WORDS_CHARS = 200
_POLL_S = 0.01
# Before the second and the third try to reach a server.
_PAUSES_S = (0.2, 1.0)


class StdioLink:
  """A process of ours that reads and writes one message a line.

  Attributes:
    fault: why it is of no use any more, '' before.
    ends: codes of errors after which it is not either.
  """

  ends = (types.CONNECTION_CLOSED,)

  def __init__(self, command: Sequence[str]):
    self._command = command
    self._words = b''
    self.fault = ''

  @contextlib.asynccontextmanager
  async def transport(self) -> AsyncIterator[tuple[Any, Any]]:
    """Starts the process and yields the streams of messages; ends it, whatever happens."""
    process = await asyncio.create_subprocess_exec(
        *self._command, env=get_default_environment(), limit=MAX_BYTES, start_new_session=True,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE)
    inbox_end, inbox = anyio.create_memory_object_stream(0)
    outbox, outbox_end = anyio.create_memory_object_stream(0)
    try:
      async with inbox_end, inbox, outbox, outbox_end, anyio.create_task_group() as group:
        group.start_soon(self._read, process.stdout, inbox_end)
        group.start_soon(self._write, process.stdin, outbox_end)
        group.start_soon(self._hear, process.stderr)
        yield inbox, outbox
        group.cancel_scope.cancel()
    finally:
      with anyio.CancelScope(shield=True):
        await self._end(process)

  def last_words(self) -> str:
    """Returns the last line that it wrote to its standard error, in case it explains something."""
    lines = self._words.decode('utf-8', 'replace').splitlines()
    line = next((line for line in reversed(lines) if line.strip()), '')
    return ''.join(filter(str.isprintable, line)).strip()[:_MAX_WORDS_CHARS]

  async def _read(self, stdout: asyncio.StreamReader, inbox: Any) -> None:
    """Passes messages on until the process ends, or shows that it does not speak the protocol."""
    strays = 0
    while strays <= _MAX_STRAYS:
      try:
        line = await stdout.readline()
        line.decode()
      except UnicodeDecodeError:
        return self._fail('the server wrote what is not UTF-8')
      except ValueError:
        return self._fail(f'the server wrote a line of more than {MAX_BYTES} bytes')
      if not line:
        return self._fail('the server has ended')
      strays += 1
      with contextlib.suppress(ValueError):
        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        await inbox.send(SessionMessage(message))
        if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
          strays = 0
    self._fail(f'the server wrote {_MAX_STRAYS} lines that answer nothing')

  def _fail(self, fault: str) -> None:
    self.fault = fault
    raise ConnectionError(fault)

  async def _write(self, stdin: asyncio.StreamWriter, outbox: Any) -> None:
    async for item in outbox:
      stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b'\n')
      await stdin.drain()

  async def _hear(self, stderr: asyncio.StreamReader) -> None:
    while piece := await stderr.read(_PIECE_BYTES):
      self._words = (self._words + piece)[-_WORDS_BYTES:]

  async def _end(self, process: asyncio.subprocess.Process) -> None:
    """Lets the process end by itself, if it may be trusted to; then ends what is left of it."""
    process.stdin.close()
    if not self.fault:
      await _ended(process)
    for farewell in (signal.SIGTERM, signal.SIGKILL):
      # Those that it has started are in its group, also when it has ended itself.
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, farewell)
      await _ended(process)
    with anyio.move_on_after(GRACE_S):
      await self._hear(process.stderr)
      while await process.stdout.read(_PIECE_BYTES):
        pass


class HttpLink:
  """A server that is reached by streamable HTTP.

  Attributes:
    fault: ''; what goes wrong is told by the package.
    ends: codes of errors after which it is of no use; one is that of an unknown session.
  """

  ends = (types.CONNECTION_CLOSED, types.INVALID_REQUEST)

  def __init__(self, url: str):
    self._url = url
    self.fault = ''

  @contextlib.asynccontextmanager
  async def transport(self) -> AsyncIterator[tuple[Any, Any]]:
    """Yields the streams of messages."""
    # Whoever waits for an answer has a time limit; what is compressed may be of any size.
    async with _Browser(timeout=None, headers={'Accept-Encoding': 'identity'}) as browser:
      async with streamable_http_client(
          self._url, http_client=browser, max_sse_event_size=MAX_BYTES) as streams:
        yield streams

  def last_words(self) -> str:
    """Returns '': nothing but answers comes from there."""
    return ''


class _Browser(httpx2.AsyncClient):
  """Tries again where it got no connection, so that nothing is asked twice; bounds the bodies."""

  async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
    for pause in _PAUSES_S:
      with contextlib.suppress(httpx2.ConnectError):
        return _bounded(await super().send(request, **options))
      await asyncio.sleep(pause)
    return _bounded(await super().send(request, **options))


class _Bounded(httpx2.AsyncByteStream):

  def __init__(self, stream: httpx2.AsyncByteStream):
    self._stream = stream

  async def __aiter__(self) -> AsyncIterator[bytes]:
    left = MAX_BYTES
    async for piece in self._stream:
      left -= len(piece)
      if left < 0:
        raise httpx2.StreamError(f'an answer of more than {MAX_BYTES} bytes')
      yield piece

  async def aclose(self) -> None:
    await self._stream.aclose()


def _bounded(response: httpx2.Response) -> httpx2.Response:
  response.headers.pop('Content-Encoding', None)
  response.stream = _Bounded(response.stream)
  return response


async def _ended(process: asyncio.subprocess.Process) -> None:
  """Waits a little for the end of `process`; for that alone, since others may keep its pipes."""
  with anyio.move_on_after(GRACE_S):
    while process.returncode is None:
      await anyio.sleep(_POLL_S)
