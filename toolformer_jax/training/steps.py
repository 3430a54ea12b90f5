"""The states to resume a fine-tuning run from, one Orbax checkpoint each."""

import logging
import pathlib
from types import TracebackType
from typing import Self

from orbax.checkpoint import v1 as ocp

from toolformer_jax.errors import UserError
from toolformer_jax.training.state import TrainState

log = logging.getLogger(__name__)


class StepCheckpoints:
  """The folder of the newest states of a run, written in the background."""

  def __init__(self, directory: pathlib.Path, keep: int):
    """Opens or creates `directory`, in which the newest `keep` states stay."""
    self._directory = directory
    self._checkpointer = ocp.training.Checkpointer(
        directory.resolve(), cleanup_tmp_directories=True,
        preservation_policy=ocp.training.preservation_policies.LatestN(keep))

  def restore(self, abstract: TrainState) -> TrainState | None:
    """Returns the newest state that can be read, laid out like `abstract`; None if none was saved.

    Raises:
      UserError: states were saved, and none of them can be read.
    """
    saved = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
    for step in sorted(saved, reverse=True):
      try:
        return self._checkpointer.load(step, abstract)
      except Exception as error:  # what Orbax raises depends on what is broken
        log.warning('checkpoint %s can not be read: %s', self._directory / str(step), error)
    if saved:
      raise UserError(f'none of the checkpoints in {self._directory} can be read; '
                      'remove the folder to start from the beginning')
    return None

  def save(self, step: int, state: TrainState) -> None:
    """Starts to write `state`; waits only for an earlier one that is still being written."""
    # Overwrite: a checkpoint that could not be read may stand at this step.
    self._checkpointer.save_async(step, state, force=True, overwrite=True)

  def last_good(self) -> str:
    """Returns where the newest state is, in words."""
    self._checkpointer.wait()
    newest = self._checkpointer.latest
    return f'none was saved in {self._directory}' if newest is None else str(
        self._directory / str(newest.step))

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._checkpointer.close()
