"""Counts the programs that XLA compiles. There should be few of them, as shapes are bucketed."""

import logging
from typing import Self

import jax

log = logging.getLogger(__name__)

_COMPILED = '/jax/core/compile/backend_compile_duration'
_CACHED = '/jax/compilation_cache/cache_hits'


class CompileCounter:
  """A context manager that counts compilations, and logs the counts at the end.

  Attributes:
    programs: number of programs that were compiled or loaded from the compilation cache.
    cached: number of those that were loaded from the cache.
    seconds: total time of compiling and loading.
  """

  def __init__(self) -> None:
    self.programs = self.cached = 0
    self.seconds = 0.0

  def __enter__(self) -> Self:
    jax.monitoring.register_event_duration_secs_listener(self._on_duration)
    jax.monitoring.register_event_listener(self._on_event)
    return self

  def __exit__(self, *exception: object) -> None:
    jax.monitoring.unregister_event_duration_listener(self._on_duration)
    jax.monitoring.unregister_event_listener(self._on_event)
    log.info('%d programs in %.0f s: %d compiled, %d loaded from the compilation cache.',
             self.programs, self.seconds, self.programs - self.cached, self.cached)

  def _on_duration(self, event: str, duration_secs: float, **details: str | int) -> None:
    if event == _COMPILED:
      self.programs += 1
      self.seconds += duration_secs

  def _on_event(self, event: str, **details: str | int) -> None:
    self.cached += event == _CACHED
