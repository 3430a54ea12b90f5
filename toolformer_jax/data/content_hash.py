"""Hashes: of what a result depends on, and of ids by which something is chosen at random."""

import hashlib
import os
import re

from etils import epath

from toolformer_jax.data.catalogue import CATALOGUE, fetch
from toolformer_jax.data.hub_datasets import PREFIXES, local_folder
from toolformer_jax.data.local_cache import file_sha256
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_path, files_under, is_file, reason

_GGUF_PART = re.compile(r'(.+)-\d{5}-of-(\d{5})\.gguf')


def stable_hash(*parts: int | str) -> bytes:
  """Returns 32 bytes that depend on `parts` alone: the same in every process, on every machine.

  A choice by such a hash, as of a sample's seed or of held-out texts, does not depend on the order
  or the batch in which things are processed.
  """
  return hashlib.sha256('\0'.join(map(str, parts)).encode('utf-8')).digest()


def gguf_parts(path: epath.Path) -> list[epath.Path]:
  """Returns all files of the split model that a file belongs to by its name; [] if to none."""
  match = _GGUF_PART.fullmatch(path.name)
  return [path.with_name(f'{match[1]}-{part:05}-of-{match[2]}.gguf')
          for part in range(1, int(match[2]) + 1)] if match else []


def content_fingerprint(name: str | os.PathLike[str]) -> str:
  """Returns a hash of the content of a file, a folder, a dataset, or what `fetch` knows as `name`.

  Two models or corpora have the same hash if and only if their content is the same, wherever they
  are. Of an output folder of `finetune` the model alone counts, without its checkpoints. A hosted
  dataset is too large to be read for this, so that its name counts; the folder of `hf:FOLDER` is
  read.

  Raises:
    UserError: there is no such file or folder, or it cannot be read.
  """
  name = str(name)
  if name.startswith(PREFIXES):
    if found := local_folder(name):
      folder, split = found
      return stable_hash(path_sha256(folder), split).hex()
    return hashlib.sha256(name.encode()).hexdigest()
  path, asset = as_path(name), CATALOGUE.get(name)
  # As the readers do: a model's name takes precedence over a file, a file over a corpus's name.
  if asset and (asset.kind == 'model' or not is_file(path)):
    return asset.sha256 or path_sha256(as_path(fetch(name)))
  return path_sha256(path / 'model' if (path / 'model').is_dir() else path)


def path_sha256(path: epath.Path) -> str:
  """Returns the sha256 of a file, or one of the names and contents of all files of a folder.

  Raises:
    UserError: it cannot be read.
  """
  try:
    if parts := gguf_parts(path):
      return hashlib.sha256('\n'.join(map(file_sha256, parts)).encode()).hexdigest()
    if path.is_dir():
      files = files_under(path)
      lines = [f'{file.relative_to(path).as_posix()} {file_sha256(file)}' for file in files]
      return hashlib.sha256('\n'.join(lines).encode()).hexdigest()
    return file_sha256(path)
  except OSError as error:
    raise UserError(f'cannot read {path}: {reason(error)}') from error
