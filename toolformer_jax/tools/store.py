"""What tools answered, kept on disk: a call that is there is not made again.

The file is an SQLite database, so that several threads and processes may use it, and what was
written stays when the process is killed.
"""

import dataclasses
import json
import pathlib
import sqlite3
import threading
from dataclasses import dataclass

from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context, Tool, ToolError

_TABLE = '''
CREATE TABLE IF NOT EXISTS calls (
  tool TEXT, version TEXT, argument TEXT, context TEXT, result TEXT, reason TEXT, lasting INTEGER,
  PRIMARY KEY (tool, version, argument, context))
'''
_FIND = ('SELECT result, reason, lasting FROM calls '
         'WHERE tool = ? AND version = ? AND argument = ? AND context = ?')
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
      UserError: it can not be opened, or is no such file.
    """
    self._path, self.replay = path, replay
    self._lock = threading.Lock()
    if replay and not path.is_file():
      raise UserError(f'there is no file {path} to replay tool calls from')
    try:
      self._database = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
      if not replay:
        self._database.execute('PRAGMA journal_mode = WAL')
        with self._database:
          self._database.execute(_TABLE)
      self._database.execute(_FIND, ('', '', '', '')).fetchone()
    except sqlite3.Error as error:
      raise UserError(f'{path} is no store of tool calls, or can not be used ({error})') from error

  def find(self, tool: Tool, argument: str, context: Context) -> Answer | None:
    """Returns the answer that is kept; one that is not lasting counts in a replay only."""
    with self._lock:
      row = self._database.execute(_FIND, _key(tool, argument, context)).fetchone()
    answer = row and Answer(row[0], row[1], bool(row[2]))
    return answer if answer and (answer.lasting or self.replay) else None

  def add(self, tool: Tool, argument: str, context: Context, answer: Answer) -> None:
    """Keeps `answer`, on disk when this returns; in a replay nothing is kept.

    Raises:
      UserError: the file can not be written.
    """
    if self.replay:
      return
    row = (*_key(tool, argument, context), answer.result, answer.reason, answer.lasting)
    try:
      with self._lock, self._database:
        self._database.execute('INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)', row)
    except sqlite3.Error as error:
      raise UserError(f'can not write to {self._path}: {error}') from error

  def replayed_tool(self, name: str) -> 'ReplayedTool':
    """Returns a stand-in for the tool called `name`, in any case, that was recorded last.

    Raises:
      UserError: no call to it is kept.
    """
    with self._lock:
      row = self._database.execute('SELECT tool, version FROM calls WHERE lower(tool) = ? '
                                   'ORDER BY rowid DESC LIMIT 1', (name.lower(),)).fetchone()
    if not row:
      raise UserError(f'{self._path} has no call to the tool {name!r}; record one first')
    return ReplayedTool(*row)

  def close(self) -> None:
    """Lets go of the file."""
    with self._lock:
      self._database.close()


@dataclass(frozen=True)
class ReplayedTool:
  """A tool of which only the answers in a store are left."""

  name: str
  version: str

  def __call__(self, argument: str, context: Context) -> str:
    """Raises ToolError: what is in the store is not asked for here."""
    raise ToolError('not among the recorded calls')


def _key(tool: Tool, argument: str, context: Context) -> tuple[str, str, str, str]:
  return tool.name, tool.version, argument, json.dumps(dataclasses.asdict(context))
