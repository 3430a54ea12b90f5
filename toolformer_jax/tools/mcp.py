"""The tools of any server that speaks MCP, the Model Context Protocol.

A call has one text as its argument, an MCP tool takes a JSON object. This module converts the one
to the other, and answers to texts; `mcp_client` keeps the server running.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolformer_jax import calls
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context, ToolError

_MAX_REASON_CHARS = 500
_BOOLEANS = {'true': True, 'false': False}


@dataclass(frozen=True, eq=False)
class McpTool:
  """A Tool that a server offers; made by `mcp_tools`.

  Attributes:
    name: how calls spell it: `get_weather` for the server's `get-weather`.
    version: a hash of the server's name and version and of the tool's description and schema, as
      listed on the first connection. A server that is restarted may list others.
    description: what the tool does, as listed on the first connection.
    spelling: the server's own name for it.
    schema: JSON schema of its arguments.
    server: the `mcp_client.Server`, shared with its other tools.
    time_limit_s: after which an executor abandons a call. It is longer than the limits of
      `server`, which end a call that hangs, and the process with it.
  """

  name: str
  version: str
  description: str
  spelling: str
  schema: Mapping[str, Any]
  server: Any
  time_limit_s: float

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the text of the server's answer; starts the server again if it has ended.

    If the schema has one property, or requires exactly one, that property gets the argument. If it
    has none, the argument must be empty. Otherwise the argument must be a JSON object.

    Raises:
      ToolError: the argument does not fit, the server no longer has the tool, or it answers with
        an error or without a text.
      OSError: there is no answer, which may be different next time: the server ended or cannot be
        started (ConnectionError), or took too long (TimeoutError).
      RuntimeError: the server is closed.
    """
    return _text(self.server.call(self.spelling, _sendable(_arguments(argument, self.schema))))

  def close(self) -> None:
    """Ends the server, and with it all of its tools."""
    self.server.close()


def mcp_tools(
    server: str, *, start_limit_s: float = 30.0, call_limit_s: float = 10.0
) -> list[McpTool]:
  """Starts or connects a server and returns its tools.

  The server runs until one of them is closed or the program ends.

  Args:
    server: a URL (`https://example.org/mcp`, for streamable HTTP), or the command line of a server
      that uses its standard input and output. No shell is involved, and the process gets little
      more of the environment than PATH and HOME.
    start_limit_s: time to start and to list the tools.
    call_limit_s: time for a call. A process that exceeds it is ended, and started again for the
      next call.

  Raises:
    UserError: it cannot be started or reached, has no tools, or has two tools that calls would
      spell alike; or the package `mcp` is missing.
  """
  try:
    from toolformer_jax.tools import mcp_client
  except ImportError as error:
    raise UserError(f'tools of an MCP server need another package ({error}): '
                    'pip install toolformer_jax[mcp]') from error
  connected = mcp_client.Server(server, start_limit_s, call_limit_s)
  try:
    tools = [_tool(connected, identity, listed, 2 * (start_limit_s + call_limit_s))
             for identity, listed in connected.tools()]
    _check_names(server, tools)
  except BaseException:
    connected.close()
    raise
  return tools


def _tool(server: Any, identity: str, listed: Any, time_limit_s: float) -> McpTool:
  """Returns the tool that `server`, of the name and version `identity`, has `listed`."""
  name = re.sub(r'\W', '_', listed.name)
  name = name if re.match('[A-Za-z_]', name) else f'_{name}'
  description = listed.description or ''
  listing = json.dumps([identity, listed.name, description, listed.input_schema], sort_keys=True)
  version = hashlib.sha256(listing.encode()).hexdigest()[:12]
  return McpTool(name, version, description, listed.name, listed.input_schema, server,
                 time_limit_s)


def _check_names(server: str, tools: Iterable[McpTool]) -> None:
  spellings: dict[str, str] = {}
  for tool in tools:
    other = spellings.setdefault(tool.name, tool.spelling)
    if other != tool.spelling:
      raise UserError(f'the MCP server {server!r} has two tools, {other!r} and {tool.spelling!r}, '
                      f'that a call would both spell {tool.name}')
  if not spellings:
    raise UserError(f'the MCP server {server!r} has no tools')


def _arguments(argument: str, schema: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the properties that `schema` describes, as `argument` gives them."""
  properties, required = _properties(schema)
  text = calls.unquote(argument)
  if not properties:
    if text:
      raise ToolError('the tool takes no argument')
    return {}
  if len(properties) > 1 and len(required) != 1:
    return _object(text, properties, required)
  name, = required or properties
  if not text and not required:
    return {}
  return {name: _value(text, name, properties[name])}


def _properties(schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Returns the properties by name, and the names of those that are required."""
  described = schema.get('properties')
  required = dict.fromkeys(name for name in _list(schema.get('required')) if isinstance(name, str))
  # A schema may require what it does not describe.
  properties = required | (described if isinstance(described, dict) else {})
  return properties, list(required)


def _object(text: str, properties: Iterable[str], required: Iterable[str]) -> dict[str, Any]:
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    value = None
  if not isinstance(value, dict):
    optional = [f'{name} (optional)' for name in properties if name not in required]
    wanted = ', '.join([*required, *optional])
    raise ToolError(f'the argument is no JSON object: the properties are {wanted}')
  return value


def _value(text: str, name: str, schema: Any) -> Any:
  """Returns `text` as the value of the property `name`: of the first type in `schema` it fits."""
  kinds = _kinds(schema)
  if not kinds or 'string' in kinds:
    return text
  for kind in kinds:
    try:
      return _READERS[kind](text)
    except (KeyError, ValueError, RecursionError):
      continue
  raise ToolError(f'not a value for {name}: {" or ".join(kinds)} is wanted')


def _kinds(schema: Any) -> list[str]:
  """Returns the JSON types that `schema` names itself, not by reference."""
  if not isinstance(schema, dict):
    return []
  kinds = [kind for kind in [schema.get('type'), *_list(schema.get('type'))]
           if isinstance(kind, str)]
  for choice in [*_list(schema.get('anyOf')), *_list(schema.get('oneOf'))]:
    kinds += _kinds(choice)
  return kinds


def _list(value: Any) -> list[Any]:
  return value if isinstance(value, list) else []


def _number(text: str) -> float:
  number = float(text)
  if not math.isfinite(number):
    raise ValueError(text)
  return number


def _json(kind: type) -> Callable[[str], Any]:
  def read(text: str) -> Any:
    value = json.loads(text)
    if not isinstance(value, kind):
      raise ValueError(text)
    return value
  return read


_READERS: dict[str, Callable[[str], Any]] = {
    'integer': int,
    'number': _number,
    'boolean': lambda text: _BOOLEANS[text.lower()],
    'array': _json(list),
    'object': _json(dict),
}


def _sendable(arguments: dict[str, Any]) -> dict[str, Any]:
  try:
    json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
  except ValueError as error:  # a lone surrogate, or NaN
    raise ToolError('the argument cannot be sent as JSON') from error
  return arguments


def _text(answer: Any) -> str:
  """Returns the text of a tool's answer, or its structured content as JSON if it has no text."""
  texts = [part.text if part.type == 'text' else getattr(part.resource, 'text', '')
           for part in answer.content if part.type in ('text', 'resource')]
  text = ' '.join(texts).strip()
  if answer.is_error:
    raise ToolError(f'error: {text[:_MAX_REASON_CHARS] or "the tool does not say which"}')
  if not text and answer.structured_content is not None:
    text = json.dumps(answer.structured_content, ensure_ascii=False, separators=(',', ':'))
  if not text:
    raise ToolError('no text in the answer')
  return text
