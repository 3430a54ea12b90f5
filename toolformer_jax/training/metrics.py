"""Where else the metrics of a run are shown: TensorBoard and Weights & Biases, if installed."""

import hashlib
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Protocol

from toolformer_jax.errors import UserError


class Board(Protocol):
  """A place for metrics."""

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Shows the values of a step."""

  def close(self) -> None:
    """Writes what is still waiting."""


class TensorBoard:
  """Event files for TensorBoard, by tensorboardX: without TensorFlow."""

  def __init__(self, folder: pathlib.Path, last_step: int):
    """Values of steps after `last_step` that `folder` may hold are no longer shown."""
    from tensorboardX import SummaryWriter
    self._writer = SummaryWriter(
        str(folder), purge_step=last_step + 1,
        # Else two restarts within a second would write to one file.
        filename_suffix=f'.from-{last_step}')

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Shows the values of a step."""
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    """Writes what is still waiting."""
    self._writer.close()


class WeightsAndBiases:
  """A run of Weights & Biases, the same one after a restart."""

  def __init__(self, folder: pathlib.Path, project: str):
    """Joins the run that belongs to `folder`."""
    import wandb
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    self._run = wandb.init(project=project, id=name, name=folder.name, dir=folder, resume='allow')

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Shows the values of a step."""
    self._run.log(dict(values), step=step)

  def close(self) -> None:
    """Writes what is still waiting."""
    self._run.finish()


def open_boards(folder: pathlib.Path, last_step: int, wandb_project: str) -> list[Board]:
  """Returns TensorBoard, if tensorboardX is installed, and Weights & Biases, if it is asked for.

  Args:
    folder: of the run.
    last_step: the one that the run goes on from.
    wandb_project: of Weights & Biases; '' for none.

  Raises:
    UserError: Weights & Biases is asked for and not installed.
  """
  boards: list[Board] = []
  if importlib.util.find_spec('tensorboardX'):
    boards.append(TensorBoard(folder / 'tensorboard', last_step))
  if wandb_project:
    if not importlib.util.find_spec('wandb'):
      raise UserError('FinetuneConfig.wandb_project needs the package wandb: pip install wandb')
    boards.append(WeightsAndBiases(folder, wandb_project))
  return boards
