"""Ends annotation runs in the middle of their work."""

import contextlib

import pytest

from toolformer_jax.annotation.run_dir import RunFolder


class Killed(BaseException):
  """Ends a run anywhere, like a signal."""


@contextlib.contextmanager
def killed_after(writes, error=Killed):
  """Expects that a run in its block writes `writes` files, and ends by `error` at the next one."""
  left, write = [writes], RunFolder.write
  def dying_write(self, *args):
    left[0] -= 1
    if left[0] < 0:
      raise error
    write(self, *args)
  with pytest.MonkeyPatch.context() as patch, pytest.raises(error):
    patch.setattr(RunFolder, 'write', dying_write)
    yield
