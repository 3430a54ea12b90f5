"""Metric writers: a file of JSON Lines, TensorBoard, and Weights & Biases."""

import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import whole_file


class MetricWriter(Protocol):
  """Writes metrics somewhere."""

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the values of a step."""

  def close(self) -> None:
    """Flushes and closes."""


class TensorBoardWriter:
  """Event files for TensorBoard, by tensorboardX: without TensorFlow."""

  def __init__(self, folder: pathlib.Path, last_step: int):
    """Values of steps after `last_step` in `folder` are no longer shown."""
    from tensorboardX import SummaryWriter
    self._writer = SummaryWriter(
        str(folder), purge_step=last_step + 1,
        # Else two restarts within a second would write to one file.
        filename_suffix=f'.from-{last_step}')

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the values of a step."""
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes."""
    self._writer.close()


class WandbWriter:
  """A run of Weights & Biases, the same one after a restart."""

  def __init__(self, folder: pathlib.Path, project: str):
    """Opens the run that belongs to `folder`."""
    import wandb
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    self._run = wandb.init(project=project, id=name, name=folder.name, dir=folder, resume='allow')

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the values of a step."""
    self._run.log(dict(values), step=step)

  def close(self) -> None:
    """Flushes and closes."""
    self._run.finish()


def open_metric_writers(folder: pathlib.Path, last_step: int, wandb_project: str
                        ) -> list[MetricWriter]:
  """Returns TensorBoard, if tensorboardX is installed, and Weights & Biases, if a project is given.

  Args:
    folder: of the run.
    last_step: the step from which the run continues.
    wandb_project: of Weights & Biases; '' for none.

  Raises:
    UserError: a project is given and Weights & Biases is not installed.
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
  """The file metrics.jsonl, a line for each step, and other writers that get the same values."""

  def __init__(self, file: pathlib.Path, last_step: int, writers: Sequence[MetricWriter] = ()):
    """Opens `file`; lines of steps after `last_step` are dropped: those steps run again."""
    lines = file.read_text('utf-8').splitlines() if file.exists() else []
    with whole_file(file) as kept:
      kept.writelines(f'{line}\n' for line in lines if _step(line) <= last_step)
    self._file = open(file, 'a', encoding='utf-8')  # noqa: SIM115 - closed on exit
    self._writers = writers

  def write(self, step: int, **values: Any) -> None:
    """Appends the values of a step."""
    self._file.write(json.dumps({'step': step, **values}) + '\n')
    self._file.flush()
    for writer in self._writers:
      writer.write(step, values)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._file.close()
    for writer in self._writers:
      writer.close()


def _step(line: str) -> float:
  """Returns the step of a line; infinity for a line that was cut short."""
  try:
    return json.loads(line)['step']
  except (ValueError, KeyError, TypeError):
    return float('inf')
