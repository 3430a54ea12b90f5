"""Checks output folders and files before the work, so that nothing is computed in vain.

Of folders in buckets nothing is checked: they need not exist, and a look at them takes time.
"""

import os
import pathlib

from etils import epath

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_path, is_remote

_WEIGHTS = ('.safetensors', '.safetensors.zst', '.bin', '.gguf', '.safetensors.index.json')


def check_output_dir(path: epath.PathLike) -> None:
  """Raises UserError if `path` is no folder and cannot become one, or must not be written to."""
  path = as_path(path)
  if is_remote(path):
    return
  local = pathlib.Path(os.path.abspath(path))
  existing = next(parent for parent in (local, *local.parents) if parent.exists())
  if not existing.is_dir():
    raise UserError(f'cannot write to the output folder {path}: {existing} is a file')
  if not os.access(existing, os.W_OK):
    raise UserError(f'cannot write to the output folder {path}: no permission to write to '
                    f'{existing}')
  check_holds_no_checkpoint(path)


def check_holds_no_checkpoint(path: epath.Path) -> None:
  """Raises UserError if a run in the folder `path` would be mixed with a checkpoint.

  No run writes these files there; a tokenizer has a run.json beside it if a run wrote it.
  """
  if is_remote(path) or not path.is_dir():
    return
  names = sorted(file.name for file in path.iterdir())
  of_checkpoint = [name for name in names if name == 'config.json' or name.endswith(_WEIGHTS)]
  if 'run.json' not in names:
    of_checkpoint += [name for name in names if name == 'tokenizer.json']
  if of_checkpoint:
    raise UserError(f'cannot write to the output folder {path}: it holds a checkpoint, with '
                    f'{of_checkpoint[0]}; choose another output_dir')


def check_is_new(path: epath.Path) -> None:
  """Raises UserError if `path` is a file, or a folder that is not empty."""
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise UserError(f'{path} exists already; choose another output_dir')


def check_output_file(path: epath.Path) -> None:
  """Raises UserError if the file `path` cannot be written."""
  if is_remote(path):
    return
  if path.is_dir():
    raise UserError(f'cannot write {path}: it is a folder')
  if not path.parent.is_dir():
    raise UserError(f'cannot write {path}: there is no folder {path.parent}')
  if not os.access(path.parent, os.W_OK):
    raise UserError(f'cannot write {path}: no permission to write to {path.parent}')
