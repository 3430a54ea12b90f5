"""Joins the processes of `jax.distributed`."""

import os

from toolformer_jax.errors import UserError

_PATIENCE_S = 86_400  # a day


def join_cluster() -> tuple[int, int]:
  """Meets the processes of `jax.distributed`; returns which one this is, and how many there are.

  Raises:
    UserError: there is no such cluster, or it cannot be joined.
  """
  import jax
  try:
    jax.distributed.initialize(
        num_processes=_from_environment('JAX_NUM_PROCESSES'),
        process_id=_from_environment('JAX_PROCESS_ID'),
        # Shards end at different times: who is done waits for the others, and one that dies does
        # not take them with it.
        heartbeat_timeout_seconds=_PATIENCE_S, shutdown_timeout_seconds=_PATIENCE_S)
  except (ValueError, RuntimeError) as error:
    raise UserError(f'--distributed: cannot join the other processes ({error}); set '
                    'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID') from error
  return jax.process_index(), jax.process_count()


def _from_environment(name: str) -> int | None:
  """Returns the number in a variable of the environment; None without one."""
  value = os.environ.get(name)
  if value is not None and not value.isdecimal():
    raise UserError(f'{name} must be a number, not {value!r}')
  return None if value is None else int(value)


