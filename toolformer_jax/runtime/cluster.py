"""Joins the cluster of `jax.distributed`."""

import os

from toolformer_jax.errors import UserError

_TIMEOUT_S = 86_400  # a day


def join_cluster() -> tuple[int, int]:
  """Initializes `jax.distributed`; returns the index and the number of the processes.

  Raises:
    UserError: no cluster is configured, or it cannot be joined.
  """
  import jax
  try:
    jax.distributed.initialize(
        num_processes=_from_environment('JAX_NUM_PROCESSES'),
        process_id=_from_environment('JAX_PROCESS_ID'),
        # Shards end at different times. A process that is done waits for the others, and one that
        # dies must not stop them.
        heartbeat_timeout_seconds=_TIMEOUT_S, shutdown_timeout_seconds=_TIMEOUT_S)
  except (ValueError, RuntimeError) as error:
    raise UserError(f'--distributed: cannot join the other processes ({error}); set '
                    'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID') from error
  return jax.process_index(), jax.process_count()


def _from_environment(name: str) -> int | None:
  """Returns the integer in an environment variable, or None if it is not set."""
  value = os.environ.get(name)
  if value is not None and not value.isdecimal():
    raise UserError(f'{name} must be a number, not {value!r}')
  return None if value is None else int(value)


