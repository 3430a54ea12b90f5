"""The output folder of a long run: one writer, one configuration, files whole or absent."""

import fcntl
import json
import os
import pathlib
from types import TracebackType
from typing import Any, Self

from toolformer_jax.errors import UserError


class LockedFolder:
  """An output folder, locked against a second writer while it is open.

  Its run.json holds the configuration, and the versions of the software that made it.
  """

  def __init__(self, path: pathlib.Path, configuration: dict[str, Any], versions: dict[str, str]):
    """Opens or creates the folder `path`.

    Args:
      path: the folder.
      configuration: everything that the results depend on, as JSON; a folder that was made with
        another one is refused.
      versions: of the software, recorded and not compared.

    Raises:
      UserError: the folder has another configuration or another writer, or is no folder.
    """
    self.path = path
    try:
      path.mkdir(parents=True, exist_ok=True)
      self._lock = open(path / '.lock', 'w')  # noqa: SIM115 - held while the folder is open
    except OSError as error:
      raise UserError(f'can not write to the output folder {path}: {error.strerror}') from error
    try:
      self._take_lock()
      self._check(json.loads(json.dumps(configuration)), versions)
    except UserError:
      self._lock.close()  # else the folder stays locked for as long as somebody holds the error
      raise

  def _take_lock(self) -> None:
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise UserError(f'another process is writing to {self.path}; wait for it, '
                      'or choose another --output_dir') from error

  def _check(self, configuration: dict[str, Any], versions: dict[str, str]) -> None:
    file = self.path / 'run.json'
    if not file.exists():
      write_json(file, {'configuration': configuration, 'versions': versions})
      return
    try:
      made_with = json.loads(file.read_text('utf-8'))['configuration']
    except (ValueError, KeyError, TypeError) as error:
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
    self._lock.close()


def write_json(file: pathlib.Path, value: Any) -> None:
  """Writes `value` to `file` at once: the file is there whole, or not at all."""
  temporary = file.with_name(file.name + '.tmp')
  temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + '\n', 'utf-8')
  os.replace(temporary, file)


def _flat(value: Any, name: str = '') -> dict[str, Any]:
  """Returns nested JSON objects as one level of dotted names."""
  if not isinstance(value, dict):
    return {name: value}
  flat = {}
  for key, inner in value.items():
    flat |= _flat(inner, f'{name}.{key}' if name else key)
  return flat
