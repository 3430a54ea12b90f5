"""Stores the results of tool calls on disk, so that no call is made twice.

The file is an SQLite database: several threads and processes can use it, and nothing that was
written is lost if a process is killed.
"""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from etils import epath

from toolformer_jax.data.local_copy import local_copy
from toolformer_jax.errors import UserError
from toolformer_jax.media.table import Medium
from toolformer_jax.runtime.paths import is_remote
from toolformer_jax.tools.base import Context, Tool

_TABLES = (
  'CREATE TABLE IF NOT EXISTS calls ('
  'tool TEXT, version TEXT, argument TEXT, context TEXT, result TEXT, reason TEXT, '
  'lasting INTEGER, PRIMARY KEY (tool, version, argument, context))',
  'CREATE TABLE IF NOT EXISTS tools (name TEXT PRIMARY KEY, version TEXT)',
  'CREATE TABLE IF NOT EXISTS made ('
  'tool TEXT, version TEXT, argument TEXT, context TEXT, media TEXT, '
  'PRIMARY KEY (tool, version, argument, context))',
)
_FIND = ('SELECT result, reason, lasting FROM calls '
         'WHERE tool = ? AND version = ? AND argument = ? AND context = ?')
_ADD = 'INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)'
_FIND_MADE = ('SELECT media FROM made '
              'WHERE tool = ? AND version = ? AND argument = ? AND context = ?')
_ADD_MADE = 'INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?, ?)'
_WAIT_S = 60.0  # while another process writes


@dataclass(frozen=True)
class Answer:
  """The answer of a tool: a result, or the reason of a failure.

  Attributes:
    result: the result before cleaning and truncation; None after a failure.
    reason: the reason of a failure; None if there is a result.
    lasting: whether the same call would get the same answer. False after a timeout or a crash.
    made: the media that the call added to the table of its text.
  """

  result: str | None
  reason: str | None = None
  lasting: bool = True
  made: tuple[Medium, ...] = ()


class CallStore:
  """Answers by tool, version, argument and context. Used by `Executor`."""

  def __init__(self, path: epath.Path, replay: bool = False):
    """Opens or creates the file `path`. With `replay`, it must exist and is only read.

    Raises:
      UserError: it cannot be opened, or is not a store of tool calls.
    """
    self._path, self.replay = path, replay
    self._lock = threading.Lock()
    if replay and not path.is_file():
      raise UserError(f'there is no file {path} to replay tool calls from')
    if is_remote(path):
      if not replay:
        raise UserError(f'{path}: tool calls are recorded in a database, which must be on disk; '
                        'copied to a bucket, it can be replayed from there')
      path = local_copy([path]) / path.name
    with self._errors('is not a store of tool calls, or cannot be opened'):
      self._database = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
      if not replay:
        with self._database:
          for table in _TABLES:
            self._database.execute(table)
      self._database.execute(_FIND, ('', '', '', '')).fetchone()
      self._has_made = bool(self._database.execute(  # stores of earlier versions have no such table
          "SELECT 1 FROM sqlite_master WHERE name = 'made'").fetchone())

  def find(self, tool: Tool, argument: str, context: Context) -> Answer | None:
    """Returns the stored answer.

    Only a replay returns one that is not lasting, or whose call made a file that is gone.

    Raises:
      UserError: the file cannot be read.
    """
    key = _key(tool, argument, context)
    with self._lock, self._errors('cannot be read'):
      row = self._database.execute(_FIND, key).fetchone()
      found = self._database.execute(_FIND_MADE, key).fetchone() if self._has_made else None
    if not row:
      return None
    made = tuple(Medium(*one) for one in json.loads(found[0])) if found and row[0] else ()
    answer = Answer(row[0], row[1], bool(row[2]), made)
    return answer if self.replay or (answer.lasting and all(map(_is_there, made))) else None

  def add(self, tool: Tool, answers: Iterable[tuple[str, Context, Answer]]) -> None:
    """Stores (argument, context, answer) tuples. They are on disk when this returns.

    Does nothing in a replay.

    Raises:
      UserError: the file cannot be written.
    """
    if self.replay:
      return
    keyed = [(_key(tool, argument, context), answer) for argument, context, answer in answers]
    rows = [(*key, answer.result, answer.reason, answer.lasting) for key, answer in keyed]
    made = [(*key, json.dumps([(one.kind, one.path, one.sha256) for one in answer.made]))
            for key, answer in keyed if answer.made]
    with self._lock, self._errors('cannot be written'), self._database:
      self._database.executemany(_ADD, rows)
      self._database.executemany(_ADD_MADE, made)

  def add_tool(self, tool: Tool) -> None:
    """Stores the version of a tool that is being recorded, for `replayed_tool`."""
    with self._lock, self._errors('cannot be written'), self._database:
      self._database.execute('INSERT OR REPLACE INTO tools VALUES (?, ?)',
                             (tool.name, tool.version))

  def replayed_tool(self, name: str) -> 'ReplayedTool':
    """Returns a placeholder for the recorded tool `name` (in any case), in its last version.

    Raises:
      UserError: the tool was not recorded.
    """
    with self._lock, self._errors('cannot be read'):
      row = self._database.execute('SELECT name, version FROM tools WHERE lower(name) = ?',
                                   (name.lower(),)).fetchone()
    if not row:
      raise UserError(f'{self._path} was not recorded with the tool {name!r}')
    return ReplayedTool(*row)

  def close(self) -> None:
    """Closes the file."""
    with self._lock:
      self._database.close()

  @contextlib.contextmanager
  def _errors(self, what: str) -> Iterator[None]:
    try:
      yield
    except sqlite3.Error as error:
      raise UserError(f'{self._path} {what} ({error})') from error


@dataclass(frozen=True)
class ReplayedTool:
  """A placeholder for a tool whose answers are in a store."""

  name: str
  version: str

  def __call__(self, argument: str, context: Context) -> str:
    """Raises UserError, because this method is called only if the store lacks the call."""
    raise UserError(f'{self.name}({argument!r}) is not among the recorded calls; use the same '
                    'options as in the run that was recorded')


def _is_there(medium: Medium) -> bool:
  try:
    medium.check()
    return True
  except OSError:
    return False


def _key(tool: Tool, argument: str, context: Context) -> tuple[str, str, str, str]:
  # A lone surrogate, which JSON can represent, cannot be stored.
  argument = argument.encode('utf-8', 'backslashreplace').decode('utf-8')
  fields = {name: getattr(context, name) for name in ('document_id', 'title', 'date')}
  if context.media:  # stores of earlier versions have no media in their keys
    fields['media'] = context.media.key()
  return tool.name, tool.version, argument, json.dumps(fields)
