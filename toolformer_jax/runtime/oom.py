"""Help for those whose device runs out of memory."""

import contextlib
from collections.abc import Iterator

import jax

from toolformer_jax.errors import UserError


@contextlib.contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
  """Turns running out of device memory into an error with `advice`, such as `lower X.slots`.

  Raises:
    UserError: the body needs more memory than the device has.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise UserError(f'out of memory on the device; {advice}') from error
