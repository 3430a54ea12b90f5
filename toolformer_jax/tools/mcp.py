"""Tools of servers that speak MCP, the Model Context Protocol.

A call has a string argument and a string result; an MCP tool takes a JSON object and returns a list
of contents. This module and `mcp_arguments` convert between the two. `mcp_client` manages the
connection.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.mcp_arguments import mcp_arguments, parse_object
from toolformer_jax.tools.secrets import shown_address


@dataclass(frozen=True, eq=False)
class McpTool:
  """A tool of an MCP server; created by `mcp_tools`.

  Attributes:
    name: the name that calls use: `get_weather` for the server's `get-weather`.
    version: a hash of the server's name and version and of the tool's description and schema, as
      listed on the first connection. They may change when the server restarts.
    description: the tool's description, as listed on the first connection.
    server_name: the server's own name for the tool.
    input_schema: JSON schema of the arguments.
    server: the `mcp_client.Server`, shared by all of its tools.
    result_field: the field of the structured result that is the result, such as
      `current.temperature`; '' for the text of the result.
    media_field: the property that gets the content of the medium whose handle is the argument.
    time_limit_s: when an executor abandons a call. It is longer than the limits of `server`, so
      that a call that hangs is ended by the server object, which also kills the process.
  """

  name: str
  version: str
  description: str
  server_name: str
  input_schema: Mapping[str, Any]
  server: Any
  time_limit_s: float
  result_field: str = ''
  media_field: str = ''

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the text of the tool's result. Restarts the server if it has exited.

    `mcp_arguments` tells how the argument becomes those of the server's tool.

    Raises:
      ToolError: the argument does not match the schema, it names a medium that is not there, the
        server no longer has the tool, or the result is an error or has no text.
      OSError: a temporary failure: the server exited or cannot be started (ConnectionError), or did
        not answer in time (TimeoutError); or the file of a medium is gone or has changed.
      RuntimeError: the server is closed.
    """
    arguments = mcp_arguments(argument, self.input_schema, context.media, self.media_field)
    result = self.server.call(self.server_name, arguments)
    return self.server.redact(_text(result, self.result_field))

  def close(self) -> None:
    """Closes the server, which all of its tools share."""
    self.server.close()


def mcp_tools(
    server: str, *, env: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
    start_limit_s: float = 30.0, call_limit_s: float = 10.0,
) -> list[McpTool]:
  """Connects to a server and returns its tools.

  The connection lasts until one of the tools is closed or the program ends.

  Args:
    server: a URL (`https://example.org/mcp`, for streamable HTTP), or the command line of a server
      that uses standard input and output. It is run without a shell, and with little more of the
      environment than PATH and HOME. It ends with this program, however that ends.
    env: more environment variables for a command.
    headers: HTTP headers for a URL. In these, in `env` and in `server`, `$NAME` stands for the
      environment variable NAME; its value is in no error.
    start_limit_s: time limit for starting the server and listing its tools.
    call_limit_s: time limit of one call. A server process that exceeds it is killed, and started
      again for the next call.

  Raises:
    UserError: the server cannot be started or reached, has no tools, or has two tools with the same
      name in calls; or the package `mcp` is not installed.
  """
  try:
    from toolformer_jax.tools import mcp_client
  except ImportError as error:
    raise UserError(f'tools of an MCP server need the extra "mcp" ({error}): '
                    'pip install "toolformer_jax[mcp]"') from error
  connected = mcp_client.Server(server, env or {}, headers or {}, start_limit_s, call_limit_s)
  try:
    tools = [_tool(connected, identity, listed, 2 * (start_limit_s + call_limit_s))
             for identity, listed in connected.tools()]
    _check_names(shown_address(server), tools)
  except BaseException:
    connected.close()
    raise
  return tools


def _tool(server: Any, identity: str, listed: Any, time_limit_s: float) -> McpTool:
  """Returns the tool that `server` lists as `listed`; `identity` is its name and version."""
  name = re.sub(r'\W', '_', listed.name)
  name = name if re.match('[A-Za-z_]', name) else f'_{name}'
  description = listed.description or ''
  listing = json.dumps([identity, listed.name, description, listed.input_schema], sort_keys=True)
  version = hashlib.sha256(listing.encode()).hexdigest()[:12]
  return McpTool(name, version, description, listed.name, listed.input_schema, server,
                 time_limit_s)


def _check_names(server: str, tools: Iterable[McpTool]) -> None:
  server_names: dict[str, str] = {}
  for tool in tools:
    other = server_names.setdefault(tool.name, tool.server_name)
    if other != tool.server_name:
      raise UserError(f'the MCP server {server!r} has two tools, {other!r} and '
                      f'{tool.server_name!r}, that would both be called {tool.name}')
  if not server_names:
    raise UserError(f'the MCP server {server!r} has no tools')


def _text(result: Any, field: str = '') -> str:
  """Returns the text of a CallToolResult, or its structured content as JSON if it has no text.

  With a `field`, it is that of the structured content.
  """
  text = ' '.join(filter(None, map(_text_of_content, result.content))).strip()
  if result.is_error:
    raise ToolError(f'error: {text or "the tool gives no reason"}')
  if field:
    return _field(result.structured_content or parse_object(text), field)
  if not text and result.structured_content is not None:
    text = json.dumps(result.structured_content, ensure_ascii=False, separators=(',', ':'))
  if not text:
    raise ToolError('the result has no text')
  return text


def _field(value: Any, path: str) -> str:
  """Returns the value at `path`, names and indices of lists with dots between them, as text."""
  for key in path.split('.'):
    try:
      value = value[int(key)] if isinstance(value, list) else value[key]
    except (KeyError, IndexError, TypeError, ValueError) as error:
      raise ToolError(f'the result has no field {path}') from error
  if isinstance(value, str):
    return value
  return json.dumps(value, ensure_ascii=False, separators=(',', ':'))


def _text_of_content(content: Any) -> str:
  """Returns the text of one part of a result; '' for an image, audio or binary data."""
  match content.type:
    case 'text':
      return content.text
    case 'resource':
      return getattr(content.resource, 'text', '')
    case 'resource_link':
      return f'{content.name} ({content.uri})'
  return ''
