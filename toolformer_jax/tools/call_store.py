"""What tools answered, kept on disk: a call that is there is not made again.

The file is an SQLite database, so that several threads and processes may use it, and what was
written stays when the process is killed.
"""

import contextlib
import dataclasses
import json
import pathlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context, Tool

_TABLES = (
  'CREATE TABLE IF NOT EXISTS calls ('
  'tool TEXT, version TEXT, argument TEXT, context TEXT, result TEXT, reason TEXT, '
  'lasting INTEGER, PRIMARY KEY (tool, version, argument, context))',
  'CREATE TABLE IF NOT EXISTS tools (name TEXT PRIMARY KEY, version TEXT)',
)
_FIND = ('SELECT result, reason, lasting FROM calls '
         'WHERE tool = ? AND version = ? AND argument = ? AND context = ?')
_ADD = 'INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)'
_WAIT_S = 60.0  # for another process that writes


@dataclass(frozen=True)
class Answer:
  """What a tool said: a result, or the reason for having none.

  Attributes:
    result: before it is cleaned and cut; None without one.
    reason: of the failure; None with a result.
    lasting: whether the same call would have the same answer: not after a time limit or a crash.
  """

  result: str | None
  reason: str | None = None
  lasting: bool = True


class CallStore:
  """Answers by tool, version, argument and context; see `Executor`."""

  def __init__(self, path: pathlib.Path, replay: bool = False):
    """Opens or creates the file `path`; with `replay` it has to be there and is only read.

    Raises:
      UserError: it cannot be opened, or is no such file.
    """
    self._path, self.replay = path, replay
    self._lock = threading.Lock()
    if replay and not path.is_file():
      raise UserError(f'there is no file {path} to replay tool calls from')
    with self._errors('is no store of tool calls, or cannot be used'):
      self._database = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
      if not replay:
        with self._database:
          for table in _TABLES:
            self._database.execute(table)
      self._database.execute(_FIND, ('', '', '', '')).fetchone()

  def find(self, tool: Tool, argument: str, context: Context) -> Answer | None:
    """Returns the answer that is kept; one that is not lasting counts in a replay only.

    Raises:
      UserError: the file cannot be read.
    """
    with self._lock, self._errors('cannot be read'):
      row = self._database.execute(_FIND, _key(tool, argument, context)).fetchone()
    answer = row and Answer(row[0], row[1], bool(row[2]))
    return answer if answer and (answer.lasting or self.replay) else None

  def add(self, tool: Tool, answers: Iterable[tuple[str, Context, Answer]]) -> None:
    """Keeps (argument, context, answer) each, on disk when this returns; in a replay nothing.

    Raises:
      UserError: the file cannot be written.
    """
    if self.replay:
      return
    rows = [(*_key(tool, argument, context), answer.result, answer.reason, answer.lasting)
            for argument, context, answer in answers]
    with self._lock, self._errors('cannot be written'), self._database:
      self._database.executemany(_ADD, rows)

  def add_tool(self, tool: Tool) -> None:
    """Notes which version of a tool is being recorded, for `replayed_tool`."""
    with self._lock, self._errors('cannot be written'), self._database:
      self._database.execute('INSERT OR REPLACE INTO tools VALUES (?, ?)',
                             (tool.name, tool.version))

  def replayed_tool(self, name: str) -> 'ReplayedTool':
    """Returns a stand-in for the tool called `name`, in any case, in the version noted last.

    Raises:
      UserError: it was not recorded.
    """
    with self._lock, self._errors('cannot be read'):
      row = self._database.execute('SELECT name, version FROM tools WHERE lower(name) = ?',
                                   (name.lower(),)).fetchone()
    if not row:
      raise UserError(f'{self._path} was not recorded with the tool {name!r}')
    return ReplayedTool(*row)

  def close(self) -> None:
    """Lets go of the file."""
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
  """A tool of which only the answers in a store are left."""

  name: str
  version: str

  def __call__(self, argument: str, context: Context) -> str:
    """Raises UserError: what is in the store is not asked for here, so this call is not in it."""
    raise UserError(f'{self.name}({argument!r}) is not among the recorded calls: this is not the '
                    'run that was recorded')


def _key(tool: Tool, argument: str, context: Context) -> tuple[str, str, str, str]:
  # Half a character, which JSON can spell, cannot be written.
  argument = argument.encode('utf-8', 'backslashreplace').decode('utf-8')
  return tool.name, tool.version, argument, json.dumps(dataclasses.asdict(context))
