"""A well-behaved MCP server, written with the package `mcp`.

  python mcp_server.py [--port PORT]

With a port it speaks streamable HTTP, else over its standard input and output.
"""

import argparse
import enum
import hashlib
import os

import anyio
import pydantic
from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import (
  CallToolResult,
  EmbeddedResource,
  ResourceLink,
  TextContent,
  TextResourceContents,
)

parser = argparse.ArgumentParser()
parser.add_argument('--port', type=int)
server = MCPServer('example', version='1.0', log_level='ERROR')


@server.tool(name='get-weather', description='Tells the weather.')
def weather(city: str, unit: str = 'C') -> str:
  return f'{city}: 20 {unit}'


@server.tool()
def double(number: int) -> str:
  return str(2 * number)


@server.tool()
def halve(number: float | None) -> str:
  return str(number / 2)


@server.tool()
def negate(flag: bool) -> str:
  return str(not flag)


@server.tool()
def total(numbers: list[int]) -> str:
  return str(sum(numbers))


@server.tool()
def area(width: int, height: int, unit: str = 'm') -> str:
  return f'{width * height} {unit}'


@server.tool()
def greet(name: str = 'world') -> str:
  return f'Hello, {name}!'


class Level(enum.IntEnum):
  """Stands behind a reference in the schema."""

  LOW = 1
  HIGH = 2


@server.tool()
def rise(level: Level) -> str:
  return str(level + 1)


@server.tool()
def digest(file: pydantic.Base64Bytes) -> str:
  return hashlib.sha256(file).hexdigest()


@server.tool()
def letters(text: str, more: str = '') -> str:
  return f'{text}{more}'


@server.tool()
def pid() -> str:
  return str(os.getpid())


@server.tool()
def fail(reason: str) -> str:
  raise ToolError(reason)


@server.tool()
def picture() -> Image:
  return Image(data=b'GIF89a', format='gif')


@server.tool()
def parts() -> CallToolResult:
  resource = TextResourceContents(uri='file:///a.txt', text='two')
  return CallToolResult(content=[
      TextContent(type='text', text='one'),
      EmbeddedResource(type='resource', resource=resource),
      TextContent(type='text', text='three')])


@server.tool()
def link() -> CallToolResult:
  return CallToolResult(content=[
      TextContent(type='text', text='see:'),
      ResourceLink(type='resource_link', uri='file:///notes.txt', name='notes')])


@server.tool()
def data() -> CallToolResult:
  return CallToolResult(content=[], structured_content={'price': 12.5, 'where': ['Kraków']})


@server.tool()
def megabytes(number: int) -> str:
  return 'a ' * (number * 2**19)


@server.tool()
async def nap(seconds: float) -> str:
  await anyio.sleep(seconds)
  return f'slept {seconds}'


if port := parser.parse_args().port:
  server.run('streamable-http', port=port)
else:
  server.run()
