"""Metric writers: a JSON Lines file, TensorBoard, and Weights & Biases.

A new writer implements `MetricWriter` and is opened in `open_metric_writers`.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from etils import epath

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.line_log import LineLog
from toolformer_jax.runtime.paths import as_absolute_path, is_remote, write_text


class MetricWriter(Protocol):
  """Receives the metrics of each step."""

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the values of a step."""

  def close(self) -> None:
    """Flushes and closes."""


class TensorBoardWriter:
  """Event files for TensorBoard, written by tensorboardX, which does not need TensorFlow."""

  def __init__(self, folder: epath.Path, last_step: int):
    """Hides the values of steps after `last_step` that `folder` has: those steps run again."""
    from tensorboardX import SummaryWriter
    self._writer = SummaryWriter(
        str(folder), purge_step=last_step + 1,
        # Without a suffix, two restarts within a second would write to the same file.
        filename_suffix=f'.from-{last_step}')

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the values of a step."""
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes."""
    self._writer.close()


class WandbWriter:
  """A run of Weights & Biases; a restart continues the same one."""

  def __init__(self, folder: epath.Path, project: str):
    """Opens the run of `folder` in `project`."""
    import wandb
    name = hashlib.sha256(str(as_absolute_path(folder)).encode()).hexdigest()[:16]
    self._run = wandb.init(project=project, id=name, name=folder.name, resume='allow',
                           dir=None if is_remote(folder) else os.fspath(folder))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the values of a step."""
    self._run.log(dict(values), step=step)

  def close(self) -> None:
    """Flushes and closes."""
    self._run.finish()


def open_metric_writers(folder: epath.Path, last_step: int, wandb_project: str
                        ) -> list[MetricWriter]:
  """Returns writers for TensorBoard, if tensorboardX is installed, and for Weights & Biases.

  Args:
    folder: of the run.
    last_step: the step from which the run continues.
    wandb_project: the project of Weights & Biases; '' for no such writer.

  Raises:
    UserError: a project is given, but wandb is not installed.
  """
  writers: list[MetricWriter] = []
  if importlib.util.find_spec('tensorboardX'):
    writers.append(TensorBoardWriter(folder / 'tensorboard', last_step))
  if wandb_project:
    if not importlib.util.find_spec('wandb'):
      raise UserError('FinetuneConfig.wandb_project needs the package wandb: pip install wandb')
    writers.append(WandbWriter(folder, wandb_project))
  return writers


class MetricsLog:
  """Writes metrics to the file metrics.jsonl, a line for each step, and to other writers."""

  def __init__(self, file: epath.Path, last_step: int, writers: Sequence[MetricWriter] = ()):
    """Opens `file` and drops its lines of steps after `last_step`: those steps run again.

    Raises:
      UserError: the file cannot be read.
    """
    try:
      lines = file.read_bytes().decode().splitlines() if file.exists() else []
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(f'{file} cannot be read ({error}); remove it, and the metrics of earlier '
                      'steps are lost') from error
    write_text(file, ''.join(f'{line}\n' for line in lines if _step(line) <= last_step))
    self._file = LineLog(file)
    self._writers = writers

  def write(self, step: int, **values: Any) -> None:
    """Appends the values of a step to the file, and writes them to the other writers."""
    self._file.append(json.dumps({'step': step, **values}))
    for writer in self._writers:
      writer.write(step, values)

  def flush(self) -> None:
    """Writes what is left to write to a bucket, before a state is saved that follows it."""
    self._file.flush()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._file.close()
    for writer in self._writers:
      writer.close()


def read_metrics(file: epath.Path) -> tuple[dict[str, Any], ...]:
  """Returns the lines of a metrics.jsonl.

  Raises:
    UserError: the file cannot be read, or a line is not the metrics of a step.
  """
  remedy = 'correct it, or remove it and start again in another folder'
  try:
    lines = [json.loads(line) for line in file.read_bytes().decode().splitlines()]
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f'{file} cannot be read ({error}); {remedy}') from error
  for number, line in enumerate(lines, 1):
    if not isinstance(line, dict) or not all(
        isinstance(line.get(name), int | float) for name in ('step', 'loss', 'tokens')):
      raise UserError(f'{file}:{number} is not the metrics of a step; {remedy}')
  return tuple(lines)


def _step(line: str) -> float:
  """Returns the step of a line; infinity for an incomplete line."""
  try:
    return float(json.loads(line)['step'])
  except (ValueError, KeyError, TypeError, RecursionError):
    return float('inf')
