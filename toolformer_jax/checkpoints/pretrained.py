"""Finds a checkpoint by name or path, and loads it in the format that it has."""


from etils import epath
from jax.sharding import Mesh

from toolformer_jax.checkpoints import huggingface
from toolformer_jax.checkpoints.gguf import GgufFile, load_gguf
from toolformer_jax.checkpoints.names import check_checkpoint, known_models
from toolformer_jax.checkpoints.orbax import (
  load_orbax_config,
  load_orbax_model,
  load_orbax_tokenizer,
)
from toolformer_jax.data.catalogue import fetch, fetched
from toolformer_jax.data.content_hash import gguf_parts
from toolformer_jax.data.hub_models import download_model
from toolformer_jax.data.local_copy import local_copy
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import as_path, glob, is_remote
from toolformer_jax.runtime.run_dir import read_json
from toolformer_jax.tokenizer import Tokenizer


def load_pretrained(name: str, *, mesh: Mesh, dtype: str = 'float32') -> LanguageModel:
  """Returns the model `name` on `mesh`.

  Args:
    name: a Hugging Face directory, `hf://org/name[@revision]`, a `.gguf` file, an output directory
      of `finetune`, or a short name of `toolformer fetch`. A short name takes precedence over a
      file of the same name. Directories and files can be in a bucket, gs://.
    mesh: devices of the model.
    dtype: dtype of the computation. The variables are float32.

  Raises:
    UserError: there is no such model, or its format is not supported.
  """
  path = _local(name)
  return load_gguf(path, mesh, dtype) if path.is_file() else _load_directory(path, mesh, dtype)


def pretrained_config(name: str, download: bool = True) -> DecoderConfig:
  """Returns the configuration of the model `name`, without reading its weights.

  For a Hugging Face directory, config.json is enough.

  Args:
    name: as for `load_pretrained`.
    download: download what this machine does not have.

  Raises:
    UserError: there is no such model, its format is not supported, or it would have to be
      downloaded.
  """
  path = _local(name, weights=False, download=download)
  if path.is_file():
    return GgufFile(path).read_config()[1]
  config = path / 'config.json'  # Both formats have it, only Hugging Face's has a model_type.
  if config.is_file() and 'model_type' in read_json(config):
    return huggingface.load_config(path)
  return load_orbax_config(path)


def pretrained_tokenizer(name: str, download: bool = True) -> Tokenizer:
  """Returns the tokenizer of the model `name`, without reading its weights.

  Args:
    name, download: as for `pretrained_config`.

  Raises:
    UserError: there is no such model, its tokenizer is missing or not supported, or it would have
      to be downloaded.
  """
  path = _local(name, weights=False, download=download)
  if path.is_file():
    return GgufFile(path).tokenizer()
  config = path / 'config.json'
  if config.is_file() and 'model_type' in (fields := read_json(config)):
    return huggingface.load_tokenizer(path, fields)
  return load_orbax_tokenizer(path)


def _local(name: str, weights: bool = True, download: bool = True) -> epath.Path:
  """Returns the GGUF file or the directory of the model `name`, and downloads it if necessary.

  Raises:
    UserError: there is no such model; or it would have to be downloaded, and `download` is False.
  """
  if name in known_models():
    return as_path(fetch(name) if download else fetched(name))
  if name.startswith('hf://'):
    return as_path(download_model(name, weights, download))
  path = as_path(name)
  if is_remote(path) and path.suffix == '.gguf' and not download:
    raise UserError(f'{name} is not on this machine')
  if is_remote(path):
    path = _from_bucket(path, weights)
    name = str(path)
  check_checkpoint(name)
  return path


def _from_bucket(path: epath.Path, weights: bool) -> epath.Path:
  """Returns a copy of a model whose weights are mapped to memory; Orbax reads from the bucket."""
  if path.suffix == '.gguf' and path.is_file():
    return local_copy(gguf_parts(path) or [path]) / path.name
  if not (config := path / 'config.json').exists() or 'model_type' not in read_json(config):
    return path
  files = [file for file in path.iterdir() if file.suffix in ('.json', '.jinja', '.txt')]
  if weights:
    tensors = glob(path, '*.safetensors') or glob(path, 'pytorch_model*.bin')
    files += tensors
  return local_copy(sorted(files))


def _load_directory(path: epath.Path, mesh: Mesh, dtype: str) -> LanguageModel:
  if huggingface.is_directory(path):
    return huggingface.load_directory(path, mesh, dtype)
  if glob(path, '*.safetensors'):
    raise UserError(f'{path} is a Hugging Face directory without config.json, or without '
                    'model.safetensors or its index')
  return load_orbax_model(path, mesh, dtype)
