"""What happens when a device has too little memory."""

import contextlib
from collections.abc import Iterator

import jax

from toolformer_jax.errors import UserError


@contextlib.contextmanager
def naming_memory(setting: str) -> Iterator[None]:
  """Turns running out of memory into an error that names the setting to change.

  Raises:
    UserError: what is done inside needs more memory than there is.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise UserError(f'out of memory; make {setting} smaller') from error
