"""What tools for media share: the packages they need, and results that are short."""

import importlib.metadata

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.errors import UserError

_REVISION = 2  # increase it when this package changes what a tool for media answers


def versions_of(tool: str, packages: tuple[str, ...]) -> str:
  """Returns the installed versions of packages, such as 'rapidocr-3.10.0-pillow-13.0.0'.

  Args:
    tool: that needs the packages.
    packages: by their names on the package index.

  Raises:
    UserError: one of them is not installed.
  """
  try:
    return '-'.join(f'{name}-{importlib.metadata.version(name)}' for name in packages)
  except importlib.metadata.PackageNotFoundError as error:
    raise UserError(f'{tool} needs the package {error.name}: '
                    'pip install "toolformer_jax[media]"') from error


def settings_hash(*settings: object) -> str:
  """Returns a short hash of dataclasses with settings, and of `_REVISION`, as a part of a version.
  """
  return stable_hash(_REVISION, *map(repr, settings)).hex()[:8]


def shortened(text: str, max_chars: int) -> str:
  """Returns `text`, cut after a word if it is longer than `max_chars`; `...` shows the cut."""
  if len(text) <= max_chars:
    return text
  start = text[:max(1, max_chars - 4)]
  return f'{start.rsplit(" ", 1)[0]} ...'
