"""Out-of-memory errors that say which setting to lower."""

import contextlib
from collections.abc import Iterator

import jax

from toolformer_jax.errors import UserError


@contextlib.contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
  """Turns an out-of-memory error of the device into a UserError with `advice`.

  Args:
    advice: what the user can do, such as 'lower EngineConfig.slots, or shorten the texts'.

  Raises:
    UserError: the body runs out of device memory.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise UserError(f'out of memory on the device; {advice}') from error
