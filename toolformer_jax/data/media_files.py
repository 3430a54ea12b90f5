"""The media that a corpus names: files in its own folder, and nothing else."""

import os
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from toolformer_jax.errors import ToolError, UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import Medium, read_medium
from toolformer_jax.runtime.paths import is_remote

_ADDRESS = re.compile(r'[A-Za-z][\w+.-]*:')


def row_media(fields: Mapping[str, Any], folder: epath.Path, where: str,
              limits: MediaLimits = MediaLimits()) -> tuple[Medium, ...]:
  """Returns the media of an object of JSON Lines: its field `media`, a list of paths.

  Args:
    fields: the object.
    folder: that of the file, to which the paths are relative and in which the media are.
    where: the file and line, for errors.
    limits: what a medium may have.

  Raises:
    UserError: `media` is no list of paths, or a path leads out of the folder or to no medium.
  """
  names = fields.get('media') or []
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    raise UserError(f'{where}: the field `media` must be a list of paths')
  return tuple(_medium(name, folder, where, limits) for name in names)


def _medium(name: str, folder: epath.Path, where: str, limits: MediaLimits) -> Medium:
  try:
    return read_medium(check_inside(name, folder), os.fspath(folder), limits)
  except (ToolError, UserError) as error:  # a path that no file can have is a UserError
    raise UserError(f'{where}: media {name!r:.200}: {error}') from error


def check_inside(name: str, folder: epath.Path) -> str:
  """Returns `name`, the path of a file in `folder`.

  Raises:
    ToolError: it is an address or an absolute path, has `..`, or a link leads out of the folder.
  """
  if _ADDRESS.match(name) or name.startswith(('/', '\\', '~')) or '\0' in name:
    raise ToolError('a path relative to the folder of the corpus is needed')
  if not name.strip() or '..' in re.split(r'[/\\]', name):
    raise ToolError('the path must stay in the folder of the corpus')
  check_links(name, folder)
  return name


def check_links(name: str, folder: epath.Path) -> None:
  """Checks that no link on the way to the file `name` leads out of `folder`.

  Raises:
    ToolError: one does.
  """
  if not is_remote(folder):
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(os.path.join(folder, name))]) != root:
      raise ToolError('a link leads out of the folder of the corpus')
