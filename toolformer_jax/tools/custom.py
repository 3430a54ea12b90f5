"""The user's own tools: Python functions, and tools of MCP servers."""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import os
import pathlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Tool
from toolformer_jax.tools.function import FunctionTool, tool
from toolformer_jax.tools.secrets import check_no_secret, shown_address

# The tools of the package, by their names in calls. The command line accepts any case.
PAPER_TOOLS = ('Calculator', 'Calendar', 'MT', 'QA', 'WikiSearch')
MEDIA_TOOLS = ('Frames', 'OCR', 'Recognize', 'Speak', 'Transcribe')
TOOLS = (*PAPER_TOOLS, *MEDIA_TOOLS)
_NAME = re.compile(r'[A-Za-z_]\w*')


@dataclass(frozen=True)
class McpToolConfig:
  """A tool of an MCP server.

  In every string but the names, `$NAME` stands for the environment variable NAME.

  Attributes:
    server: a command line or a URL.
    tool: the server's name for the tool; by default the name in calls.
    env: environment variables of the server's process; of others it gets little more than PATH.
    headers: HTTP headers that are sent to a URL.
    result_field: the field of the structured result that is the result of a call, such as
      'temperature' or 'current.temperature'; by default the text of the result.
    media_field: the property of the tool's arguments that gets the content of a file in base64, if
      a call has the handle of a medium there, such as `image 1`; not needed for properties that
      the server describes as base64.
  """

  server: str
  tool: str = ''
  env: Mapping[str, str] = field(default_factory=dict)
  headers: Mapping[str, str] = field(default_factory=dict)
  result_field: str = ''
  media_field: str = ''


_MCP_FIELDS = {one.name: one for one in dataclasses.fields(McpToolConfig)}


@dataclass(frozen=True)
class CustomToolsConfig:
  """The user's own tools, by the name that calls use.

  One that is called as a tool of the package, such as `QA`, takes its place, with its prompt, its
  thresholds, and the tasks in which it must not be called.

  Attributes:
    functions: `{'Upper': 'my_tools:upper'}`: a Python function from a string to a string, with or
      without the decorator `tool`. The module may be in the working directory, or be given as a
      file, `'path/my_tools.py:upper'`.
    mcp: `{'get_weather': 'python server.py'}`: the MCP server that offers a tool of this name, as
      a command line or a URL; or the fields of `McpToolConfig`,
      `{'weather': {'server': 'https://example.org/mcp?key=$WEATHER_KEY', 'tool': 'get-weather'}}`.
      A hyphen in a name becomes an underscore.
  """

  functions: Mapping[str, str] = field(default_factory=dict)
  mcp: Mapping[str, Any] = field(default_factory=dict)

  def __post_init__(self) -> None:
    _check_strings('functions', self.functions)
    if not isinstance(self.mcp, Mapping):  # it may hold a secret, so that it is not shown
      raise UserError("CustomToolsConfig.mcp must be a mapping such as {'name': 'python a.py'}")
    for kind in ('functions', 'mcp'):
      named = {str(name).replace('-', '_'): value for name, value in getattr(self, kind).items()}
      if len(named) < len(getattr(self, kind)):
        raise UserError(f'CustomToolsConfig.{kind}: two names differ only by a hyphen')
      object.__setattr__(self, kind, named)
    self._check_names()
    for name, value in self.mcp.items():
      _mcp_tool_config(name, value)

  def _check_names(self) -> None:
    known, taken = {name.lower(): name for name in TOOLS}, set()
    for name in self.names():
      if not _NAME.fullmatch(name):
        raise UserError(f'CustomToolsConfig: {name!r} cannot be the name of a tool; use letters, '
                        'digits and underscores')
      if known.get(name.lower(), name) != name:
        raise UserError(f'CustomToolsConfig: {name!r} is spelled {known[name.lower()]!r} if it '
                        'takes the place of that tool')
      if name.lower() in taken:
        raise UserError(f'CustomToolsConfig: another tool is already called {name!r}')
      taken.add(name.lower())

  def names(self) -> list[str]:
    """Returns the names of all tools."""
    return [*self.functions, *self.mcp]

  def build(self, name: str) -> Tool:
    """Returns the tool `name`.

    Raises:
      UserError: its function cannot be imported; or its server cannot be reached, or has no such
        tool.
    """
    if name in self.functions:
      return function_tool(name, self.functions[name])
    return mcp_tool(name, _mcp_tool_config(name, self.mcp[name]))


def _check_strings(kind: str, value: Any) -> None:
  if not isinstance(value, Mapping) or not all(
      isinstance(text, str) for pair in value.items() for text in pair):
    raise UserError(f'CustomToolsConfig.{kind} must be a mapping such as {{\'Name\': \'...\'}}, '
                    f'not {value!r}')


def _mcp_tool_config(name: str, value: Any) -> McpToolConfig:
  """Returns the settings of an MCP tool, which are a string or a mapping.

  Raises:
    UserError: a field is unknown or of a wrong type, or holds a secret.
  """
  where = f'CustomToolsConfig.mcp[{name!r}]'
  fields = {'server': value} if isinstance(value, str) else value
  if not isinstance(fields, Mapping) or not fields.get('server'):
    raise UserError(f"{where} must be a command line or a URL, or a mapping with a 'server'")
  for key, given in fields.items():
    if key not in _MCP_FIELDS:
      raise UserError(f'{where} has no field {key!r}; it may have {", ".join(_MCP_FIELDS)}')
    if _MCP_FIELDS[key].type is str and not isinstance(given, str):
      raise UserError(f'{where}: {key} must be a string')
    if _MCP_FIELDS[key].type is not str and not (isinstance(given, Mapping) and all(
        isinstance(text, str) for pair in given.items() for text in pair)):
      raise UserError(f"{where}: {key} must be a mapping of strings such as {{'NAME': '...'}}")
  config = McpToolConfig(**fields)
  check_no_secret(config.server, {**config.env, **config.headers}, where)
  return config


def function_tool(name: str, path: str) -> Tool:
  """Returns a function or FunctionTool as the tool `name`.

  Args:
    name: in calls; '' for the function's own.
    path: 'module:function' or 'file.py:function'.

  Raises:
    UserError: it cannot be imported, or is no function.
  """
  module, _, attribute = path.rpartition(':')
  try:
    found = getattr(_module_of(module), attribute)
    if isinstance(found, FunctionTool):
      return dataclasses.replace(found, name=name or found.name)
    return tool(found, name=name or attribute)
  except (Exception, SystemExit) as error:  # the module of the user may raise anything, or exit
    raise UserError(f'cannot import {name or "a tool"} from {path!r} ({type(error).__name__}: '
                    f'{error}); write \'module:function\' or \'file.py:function\'') from error


def _module_of(module: str) -> ModuleType:
  """Imports a module by its name or its file; a file may import others beside it."""
  folder = os.path.dirname(os.path.abspath(module)) if module.endswith('.py') else os.getcwd()
  if folder not in sys.path:
    sys.path.append(folder)
  if not module.endswith('.py'):
    return importlib.import_module(module)
  file = pathlib.Path(module).resolve()
  name = f'{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}'
  if name not in sys.modules:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
      raise ImportError(f'{file} cannot be loaded')
    loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
      spec.loader.exec_module(loaded)
    except BaseException:
      del sys.modules[name]
      raise
  return sys.modules[name]


def mcp_tool(name: str, config: McpToolConfig) -> Tool:
  """Returns a tool of an MCP server as the tool `name`.

  Raises:
    UserError: the server cannot be reached, or has no such tool, or the tool no `media_field`.
  """
  from toolformer_jax.tools.mcp_arguments import property_names
  tools = _server_tools(config.server, tuple(config.env.items()), tuple(config.headers.items()))
  wanted = config.tool or name
  found = next((one for one in tools if wanted in (one.server_name, one.name)), None)
  if found is None:
    raise UserError(f'CustomToolsConfig.mcp: {shown_address(config.server)} has no tool {wanted}; '
                    f'it has {", ".join(one.server_name for one in tools)}')
  if config.media_field and config.media_field not in (names := property_names(found.input_schema)):
    raise UserError(f'CustomToolsConfig.mcp: {wanted} has no property {config.media_field} for '
                    f'media_field; it has {", ".join(names) or "none"}')
  version = found.version + (f'-{config.result_field}' if config.result_field else '')
  if config.media_field:
    version += f'-media:{config.media_field}'  # a result_field of that name is another version
  return dataclasses.replace(found, name=name, version=version, result_field=config.result_field,
                             media_field=config.media_field)


@functools.cache  # One process per server, even if several of its tools are used.
def _server_tools(server: str, env: tuple[tuple[str, str], ...],
                  headers: tuple[tuple[str, str], ...]) -> list[Any]:
  from toolformer_jax.tools.mcp import mcp_tools
  return mcp_tools(server, env=dict(env), headers=dict(headers))
