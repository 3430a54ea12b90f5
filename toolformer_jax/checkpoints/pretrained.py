"""Loads a model by what a user calls it: a file, a folder or a short name."""

import pathlib

from jax.sharding import Mesh

from toolformer_jax import fetch
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.checkpoints.orbax import load_model
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.models.language_model import LanguageModel


def load_pretrained(name: str, *, mesh: Mesh, dtype: str = 'float32') -> LanguageModel:
  """Returns the model `name` on `mesh`.

  Args:
    name: a `.gguf` file, a folder that `finetune` wrote, or a short name that `toolformer fetch`
      knows. A short name wins over a file of the same name.
    mesh: where its variables are put.
    dtype: of the computation; the variables are float32.

  Raises:
    UserError: there is no such model, or it is of a kind that can not be read.
  """
  models = [asset.name for asset in fetch.CATALOGUE.values() if asset.kind == 'model']
  if name in models:
    return _load_gguf(fetch.fetch(name), mesh, dtype)
  if name.startswith('hf://'):
    raise UserError(f'{name}: models of the Hugging Face hub can not be read yet; convert it to a '
                    '.gguf file')
  path = pathlib.Path(name)
  if path.is_dir():
    return _load_directory(path, mesh, dtype)
  if path.suffix == '.gguf':
    if not path.is_file():
      raise UserError(f'there is no file {name}')
    return _load_gguf(path, mesh, dtype)
  if path.exists():
    raise UserError(f'{name} is no checkpoint: neither a .gguf file nor a folder of finetune')
  if len(path.parts) > 1:
    raise UserError(f'there is no checkpoint {name}')
  raise unknown('model', name, models)


def _load_gguf(path: pathlib.Path, mesh: Mesh, dtype: str) -> LanguageModel:
  file = GgufFile(path)
  config = file.config().replace(dtype=dtype)
  return LanguageModel.place(config, {'params': file.params()}, file.tokenizer(), mesh)


def _load_directory(path: pathlib.Path, mesh: Mesh, dtype: str) -> LanguageModel:
  if list(path.glob('*.safetensors')) or list(path.glob('pytorch_model*.bin')):
    raise UserError(f'{path} is a Hugging Face folder, which can not be read yet; convert it to a '
                    '.gguf file')
  return load_model(path, mesh, dtype)
