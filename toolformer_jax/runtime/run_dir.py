"""The output folder of a long run: one configuration, one writer, no incomplete files.

Several processes can share the work; each of them has a shard of it.
"""

import contextlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from etils import epath

from toolformer_jax.errors import UserError
from toolformer_jax.runtime import locks
from toolformer_jax.runtime.output_dir import check_holds_no_checkpoint
from toolformer_jax.runtime.paths import atomic_writer, glob, make_directory, reason, write_text


@dataclass(frozen=True)
class Shard:
  """The part of the work that one of `count` processes does: pieces index, index + count, ..."""

  index: int = 0
  count: int = 1

  def __post_init__(self) -> None:
    if not 0 <= self.index < self.count:
      raise UserError(f'there is no shard {self.index} of {self.count}; shards are numbered from 0')

  def has(self, number: int) -> bool:
    """Tells whether piece `number` belongs to this shard."""
    return number % self.count == self.index


class LockedFolder:
  """An output folder, which no other process with the same shard can open at the same time.

  Its run.json holds the configuration of the run and the versions of the software.

  Attributes:
    path: the folder.
    shard: the part of the work that this process does.
    closing: what is called before the folder is given to others.
  """

  def __init__(self, path: epath.Path, configuration: dict[str, Any], versions: dict[str, str],
               shard: Shard = Shard()):
    """Opens or creates the folder `path`.

    Args:
      path: the folder.
      configuration: everything that the results depend on, as JSON. A folder with another
        configuration is refused.
      versions: versions of the software, which are recorded but not compared.
      shard: the part of the work that this process does.

    Raises:
      UserError: the folder has another configuration, is open in another process, or cannot be
        written to.
    """
    self.path, self.shard = path, shard
    self._locks, self.closing = contextlib.ExitStack(), contextlib.ExitStack()
    check_holds_no_checkpoint(path)
    try:
      make_directory(path)
      with self.exclusively():
        self._take_locks()
        self._check(json.loads(json.dumps(configuration)), versions)
    except OSError as error:
      self._locks.close()
      raise UserError(f'cannot write to the output folder {path}: {reason(error)}') from error
    except UserError:
      self._locks.close()  # otherwise the folder stays locked as long as the error exists
      raise

  def exclusively(self) -> locks.Lock:
    """Returns a lock that all shards share, for work that only one of them must do at a time."""
    return locks.lock(self.path / '.turn')

  def write_texts(self, texts: Mapping[str, str]) -> None:
    """Writes files of the folder that all shards share, by name; see `write_text`."""
    for name, text in texts.items():
      self.write_text(name, text)

  def write_text(self, name: str, text: str) -> None:
    """Writes a file of the folder that all shards share, as a whole.

    Raises:
      UserError: it cannot be written, for instance because the disk is full.
    """
    file = self.path / name
    try:
      with self.exclusively():
        write_text(file, text)
    except OSError as error:
      raise UserError(f'cannot write {file}: {reason(error)}') from error

  def _take_locks(self) -> None:
    """Locks this shard, unless processes with another number of shards have the folder open.

    The name of a lock contains the number of shards, so that such processes are noticed.
    """
    for file in glob(self.path, '.lock-*-of-*'):
      digits = file.name.rpartition('-')[2]
      count = int(digits) if digits.isdecimal() else self.shard.count  # not a lock of ours
      if count != self.shard.count and locks.is_held(file):
        if min(count, self.shard.count) == 1:
          raise self._is_taken()
        raise UserError(f'{self.path} is in use by processes with {count} shards, not '
                        f'{self.shard.count}; start all of them with the same number of shards')
    own = locks.lock(self.path / f'.lock-{self.shard.index}-of-{self.shard.count}', wait=False)
    try:
      self._locks.enter_context(own)
    except locks.LockedError as error:
      raise self._is_taken() from error

  def has_other_writers(self) -> bool:
    """Tells whether other processes, with other shards, have the folder open."""
    own = f'.lock-{self.shard.index}-of-{self.shard.count}'
    return any(locks.is_held(file) for file in glob(self.path, '.lock-*-of-*')
               if file.name != own)

  def _is_taken(self) -> UserError:
    return UserError(f'another process is writing to {self.path}; wait for it, '
                     'or choose another --output_dir')

  def _check(self, configuration: dict[str, Any], versions: dict[str, str]) -> None:
    file = self.path / 'run.json'
    if not file.exists():
      write_json(file, {'configuration': configuration, 'versions': versions})
      return
    try:
      made_with = json.loads(file.read_bytes())['configuration']
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      raise UserError(f'{file} is broken; choose another --output_dir') from error
    old, new = _flat(made_with), _flat(configuration)
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
      shown = ', '.join(f'{key} ({old.get(key)!r} then, {new.get(key)!r} now)' for key in differing)
      raise UserError(f'{self.path} was made with another configuration: {shown}; '
                      'choose another --output_dir, or the old settings')

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    with self._locks:
      self.closing.close()


def write_json(file: epath.Path, value: Any) -> None:
  """Writes `value` to `file` as JSON; an interrupted call leaves no incomplete file."""
  with atomic_writer(file) as opened:
    opened.write(json.dumps(value, indent=2, ensure_ascii=False) + '\n')


def read_json(file: epath.Path) -> dict[str, Any]:
  """Returns the object in a JSON file.

  Raises:
    UserError: the file cannot be read, or has no object.
  """
  try:
    value = json.loads(file.read_bytes())
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f'cannot read {file}: {error}') from error
  if not isinstance(value, dict):
    raise UserError(f'{file} has no JSON object')
  return value


def _flat(value: Any, name: str = '') -> dict[str, Any]:
  """Returns nested JSON objects as one level of dotted names."""
  if not isinstance(value, dict):
    return {name: value}
  flat: dict[str, Any] = {}
  for key, inner in value.items():
    flat |= _flat(inner, f'{name}.{key}' if name else key)
  return flat


def software_versions() -> dict[str, str]:
  """Returns the versions of the packages that the results of a run can depend on."""
  names = ('toolformer_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy', 'tokenizers', 'PyStemmer')
  return {name: importlib.metadata.version(name) for name in names}
