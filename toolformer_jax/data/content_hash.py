"""Hashes: of what a result depends on, and of ids by which something is chosen at random."""

import hashlib
import pathlib

from toolformer_jax.data.catalogue import CATALOGUE, file_sha256
from toolformer_jax.data.hub_datasets import PREFIXES
from toolformer_jax.errors import UserError


def stable_hash(*parts: int | str) -> bytes:
  """Returns 32 bytes that depend on `parts` alone: the same in every process and on every day.

  What is chosen by it, such as the seed of a sample or the texts that are held out, depends on no
  order and on no batch.
  """
  return hashlib.sha256('\0'.join(map(str, parts)).encode('utf-8')).digest()


def identity(name: str) -> str:
  """Returns a hash of the content of a file, a folder, or what `fetch` knows as `name`.

  It tells two models or corpora apart wherever they lie. In an output folder of `finetune` only
  the model counts, not what was kept on the way to it; of a hosted corpus, its name alone.

  Raises:
    UserError: there is no such thing, or it cannot be read.
  """
  if name.startswith(PREFIXES):  # too large to be read for this
    return hashlib.sha256(name.encode()).hexdigest()
  path, asset = pathlib.Path(name), CATALOGUE.get(name)
  # As their readers have it: the name of a model wins over a file, a file over that of a corpus.
  if asset and (asset.kind == 'model' or not path.is_file()):
    return asset.sha256
  path = path / 'model' if (path / 'model').is_dir() else path
  try:
    if path.is_dir():
      files = sorted(file for file in path.rglob('*') if file.is_file())
      lines = [f'{file.relative_to(path).as_posix()} {file_sha256(file)}' for file in files]
      return hashlib.sha256('\n'.join(lines).encode()).hexdigest()
    return file_sha256(path)
  except OSError as error:
    raise UserError(f'cannot read {name}: {error.strerror}') from error
