"""Errors and warnings of too little memory that say which setting to lower."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator

import jax

from toolformer_jax.errors import UserError

log = logging.getLogger(__name__)


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


def warn_if_host_memory_is_short(needed: int, advice: str) -> None:
  """Warns if a CPU is about to use more bytes than are available: the system would end the process.

  Args:
    needed: bytes that the next step will use in addition.
    advice: as for `explain_out_of_memory`.
  """
  available = _available_bytes()
  if jax.default_backend() == 'cpu' and available is not None and needed > available:
    log.warning('a step needs another %.1f GiB of memory, and %.1f GiB are available, so that the '
                'system may end this process; %s', needed / 2**30, available / 2**30, advice)


def _available_bytes() -> int | None:
  """Returns the memory that new work can have on this machine; None where Linux does not say.

  A container may be allowed less.
  """
  try:
    lines = pathlib.Path('/proc/meminfo').read_text().splitlines()
  except OSError:
    return None
  kilobytes = [int(line.split()[1]) for line in lines if line.startswith('MemAvailable:')]
  return 1024 * kilobytes[0] if kilobytes else None
