"""Saves and restores the states of a fine-tuning run, each as an Orbax checkpoint."""

import logging
from types import TracebackType
from typing import Self

from etils import epath
from orbax.checkpoint import v1 as ocp

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_absolute_path
from toolformer_jax.training.train_step import TrainState

log = logging.getLogger(__name__)

_DEV_LOSS = 'dev_loss'


class StepCheckpoints:
  """The checkpoints of a run: the newest states and the best one, written in the background."""

  def __init__(self, directory: epath.Path, keep: int):
    """Opens or creates `directory`, which keeps the newest `keep` states and the best one."""
    self._directory = directory
    policies = ocp.training.preservation_policies
    best = policies.BestN(n=1, get_metric_fn=lambda metrics: -metrics[_DEV_LOSS],
                          keep_checkpoints_without_metrics=False)
    self._checkpointer = ocp.training.Checkpointer(
        as_absolute_path(directory), cleanup_tmp_directories=True,
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]))
    self._dev_losses = {checkpoint.step: checkpoint.metrics[_DEV_LOSS]
                        for checkpoint in self._checkpointer.checkpoints if checkpoint.metrics}

  def restore(self, abstract: TrainState) -> TrainState | None:
    """Returns the newest readable state, with the shardings of `abstract`; None if none was saved.

    Raises:
      UserError: states were saved, but none of them can be read.
    """
    saved = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
    for step in sorted(saved, reverse=True):
      try:
        state = self._checkpointer.load(step, abstract)
      except Exception as error:  # Orbax raises many types, depending on the damage
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning('checkpoint %s cannot be read (%s); trying an older one',
                    self._directory / str(step), reason)
      else:
        # The steps after it will run again.
        self._dev_losses = {s: loss for s, loss in self._dev_losses.items() if s <= step}
        return state
    if saved:
      raise UserError(f'none of the checkpoints in {self._directory} can be read; '
                      'remove the folder to start again from step 0')
    return None

  def save(self, step: int, state: TrainState, dev_loss: float | None = None) -> None:
    """Starts to write `state`; waits only if an earlier state is still being written."""
    metrics = None
    if dev_loss is not None:
      self._dev_losses[step] = dev_loss
      metrics = {_DEV_LOSS: dev_loss}
    # Overwrite: there may be a checkpoint of this step that could not be read.
    self._checkpointer.save_async(step, state, force=True, overwrite=True, metrics=metrics)

  def best_step(self) -> int | None:
    """Returns the step of the lowest dev loss; None if none was measured."""
    return min(self._dev_losses, key=self._dev_losses.__getitem__, default=None)

  def restore_best(self, abstract: TrainState) -> TrainState:
    """Returns the state of the lowest dev loss, with the shardings of `abstract`.

    Raises:
      UserError: it cannot be read.
    """
    self._checkpointer.wait()
    step = self.best_step()
    try:
      return self._checkpointer.load(step, abstract)
    except Exception as error:  # Orbax raises many types, depending on the damage
      raise UserError(f'the best checkpoint, {self._directory / str(step)}, cannot be read; '
                      'choose another --output_dir') from error

  def last_good(self, at_most: int) -> str:
    """Returns the path of the newest state up to step `at_most`, or a note that there is none."""
    self._checkpointer.wait()
    steps = [checkpoint.step for checkpoint in self._checkpointer.checkpoints
             if checkpoint.step <= at_most]
    return str(self._directory / str(max(steps))) if steps else (
        f'none of those in {self._directory} is older than the problem')

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               traceback: TracebackType | None) -> None:
    self._checkpointer.close()
