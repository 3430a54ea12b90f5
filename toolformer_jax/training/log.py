"""The metrics of a fine-tuning run, a line of JSON a step."""

import json
import pathlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from toolformer_jax.runtime.run_dir import whole_file
from toolformer_jax.training.metrics import Board


class MetricsLog:
  """A file of metrics that is gone on with after a restart, and boards that show the same."""

  def __init__(self, file: pathlib.Path, last_step: int, boards: Sequence[Board] = ()):
    """Opens `file`; lines of steps after `last_step` are dropped, as they will be done again."""
    lines = file.read_text('utf-8').splitlines() if file.exists() else []
    with whole_file(file) as kept:
      kept.writelines(f'{line}\n' for line in lines if _step(line) <= last_step)
    self._file = open(file, 'a', encoding='utf-8')  # noqa: SIM115 - closed on exit
    self._boards = boards

  def write(self, step: int, **values: Any) -> None:
    """Appends the values of a step."""
    self._file.write(json.dumps({'step': step, **values}) + '\n')
    self._file.flush()
    for board in self._boards:
      board.write(step, values)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._file.close()
    for board in self._boards:
      board.close()


def _step(line: str) -> float:
  """Returns the step of a line; a line that was cut short counts as after all others."""
  try:
    return json.loads(line)['step']
  except (ValueError, KeyError, TypeError):
    return float('inf')
