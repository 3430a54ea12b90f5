"""Which gin files may run code.

A gin file can import modules, name functions and MCP servers as tools, and include other files: it
is a program. Those that people write or choose are trusted. The config.gin of a run is made by a
program and lies in the folders and checkpoints that people share, so that it is trusted only if it
was made here, of files that are trusted.
"""

import hashlib
from collections.abc import Iterable
from typing import IO, Any

from etils import epath
from gin import config_parser

from toolformer_jax.data.catalogue import cache_directory
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_path, is_file, open_text

_RECORD = 'own_configurations'  # in the cache: a file for each, named by its hash
_SAVED = 'config.gin'
_CUSTOM_TOOLS = 'CustomToolsConfig'
_SEQIO = 'seqio:'  # with the name of a Python module


def record(text: str) -> None:
  """Notes that a configuration with this text was made here, if it can run code."""
  if not any(map(_code_in, parse_statements(text))):
    return
  folder = cache_directory() / _RECORD
  try:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _hash(text)).touch()
  except OSError:  # a cache that cannot be written only means that the file is not trusted later
    pass


def check_trusted(path: epath.Path, seen: frozenset[epath.Path] = frozenset()) -> None:
  """Checks that no saved configuration that somebody else has made can run code.

  Args:
    path: a gin file; the files that it includes are checked too.
    seen: files that include this one.

  Raises:
    UserError: a configuration could, and is not what a run of this user has written.
    Exception: the file is not gin.
  """
  text = path.read_bytes().decode()
  with open_text(path) as file:  # so that errors name it
    statements = parse_statements(file)
  is_saved = path.name == _SAVED or (path.parent / 'run.json').exists()
  if is_saved and not (cache_directory() / _RECORD / _hash(text)).exists():
    for what in filter(None, map(_code_in, statements)):
      raise UserError(f'{path} is the configuration of a run that was not made here. It {what}, '
                      'which could run code; copy what you trust to a gin file of your own')
  check_included(statements, seen | {path})


def check_included(statements: Iterable[Any], seen: frozenset[epath.Path] = frozenset()) -> None:
  """Checks the files that statements of gin include, as `check_trusted` does."""
  for statement in statements:
    if isinstance(statement, config_parser.IncludeStatement):
      included = as_path(statement.filename)
      if is_file(included) and included not in seen:
        check_trusted(included, seen)


def parse_statements(config: str | IO[str]) -> list[Any]:
  """Returns the statements of a text or file of gin; a reference to `NAME` in them is ':NAME'.

  Raises:
    Exception: it is not gin.
  """
  return list(config_parser.ConfigParser(config, _NamesAlone()))


def _hash(text: str) -> str:
  return hashlib.sha256(text.encode('utf-8')).hexdigest()


def _code_in(statement: Any) -> str:
  """Says how a statement of a gin file can run code; '' if it cannot."""
  match statement:
    case config_parser.ImportStatement():
      return f'imports {statement.module}'
    case config_parser.IncludeStatement():
      return f'includes {statement.filename}'
    case config_parser.BindingStatement():
      name = statement.selector.rpartition('.')[2]
      if name == _CUSTOM_TOOLS and statement.value:
        return f'has tools of its own ({_CUSTOM_TOOLS}.{statement.arg_name})'
      if 'TOOLS' in (statement.selector, statement.scope) and not all(
          ':' not in one for one in _list_of_strings(statement.value)):
        return 'has tools of its own (TOOLS)'
      if any(one.startswith(_SEQIO) for one in _list_of_strings(statement.value)):
        return 'names a module of tasks (seqio:)'
  return ''


def _list_of_strings(value: Any) -> list[str]:
  """Returns the strings in a value; a reference is one with a colon."""
  if isinstance(value, list | tuple):
    return [one for inner in value for one in _list_of_strings(inner)]
  return [value] if isinstance(value, str) else []


class _NamesAlone(config_parser.ParserDelegate):
  """Looks up no reference of a gin file."""

  def configurable_reference(self, scoped_name: str, evaluate: bool) -> str:
    return f':{scoped_name}'

  def macro(self, scoped_name: str) -> str:
    return f':{scoped_name}'
