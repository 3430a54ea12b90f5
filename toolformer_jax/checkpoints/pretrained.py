"""Finds a checkpoint by name or path, and loads it in the format that it has."""

from collections.abc import Sequence

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
from toolformer_jax.data.catalogue import fetch, find_fetched
from toolformer_jax.data.content_hash import gguf_parts
from toolformer_jax.data.hub_models import download_model
from toolformer_jax.data.local_copy import find_local_copy, local_copy
from toolformer_jax.errors import NotLocalError, UserError
from toolformer_jax.models.config import DecoderConfig, Dtype
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import as_path, glob, is_remote
from toolformer_jax.runtime.run_dir import read_json
from toolformer_jax.tokenizer import Tokenizer


def load_pretrained(name: str, *, mesh: Mesh, dtype: Dtype = 'float32') -> LanguageModel:
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


def pretrained_config(name: str, *, local_files_only: bool = False) -> DecoderConfig:
  """Returns the configuration of the model `name`, without reading its weights.

  For a Hugging Face directory, config.json is enough.

  Args:
    name: as for `load_pretrained`.
    local_files_only: download nothing. What Orbax wrote to a bucket is still read from there.

  Raises:
    NotLocalError: it would have to be downloaded, and `local_files_only` is set.
    UserError: there is no such model, or its format is not supported.
  """
  path = _local(name, weights=False, local_files_only=local_files_only)
  if path.is_file():
    return GgufFile(path).read_config()[1]
  config = path / 'config.json'  # Both formats have it, only Hugging Face's has a model_type.
  if config.is_file() and 'model_type' in read_json(config):
    return huggingface.load_config(path)
  return load_orbax_config(path)


def pretrained_tokenizer(name: str, *, local_files_only: bool = False) -> Tokenizer:
  """Returns the tokenizer of the model `name`, without reading its weights.

  Args:
    name, local_files_only: as for `pretrained_config`.

  Raises:
    NotLocalError: it would have to be downloaded, and `local_files_only` is set.
    UserError: there is no such model, or its tokenizer is missing or not supported.
  """
  path = _local(name, weights=False, local_files_only=local_files_only)
  if path.is_file():
    return GgufFile(path).tokenizer()
  config = path / 'config.json'
  if config.is_file() and 'model_type' in (fields := read_json(config)):
    return huggingface.load_tokenizer(path, fields)
  return load_orbax_tokenizer(path)


def _local(name: str, *, weights: bool = True, local_files_only: bool = False) -> epath.Path:
  """Returns the GGUF file or the directory of the model `name`, and downloads it if necessary.

  Raises:
    NotLocalError: it would have to be downloaded, and `local_files_only` is set.
    UserError: there is no such model.
  """
  if name in known_models():
    return as_path(find_fetched(name) if local_files_only else fetch(name))
  if name.startswith('hf://'):
    return as_path(download_model(name, weights=weights, local_files_only=local_files_only))
  path = as_path(name)
  if is_remote(path):
    path = _from_bucket(path, weights, local_files_only)
    name = str(path)
  check_checkpoint(name)
  return path


def _from_bucket(path: epath.Path, weights: bool, local_files_only: bool) -> epath.Path:
  """Returns a copy of a model whose weights are mapped to memory; Orbax reads from the bucket."""
  if path.suffix == '.gguf' and path.is_file():
    parts = gguf_parts(path) or [path]
    return (_copy_on_disk(path, parts) if local_files_only else local_copy(parts)) / path.name
  if not (config := path / 'config.json').exists() or 'model_type' not in read_json(config):
    return path
  settings = sorted(file for file in path.iterdir() if file.suffix in ('.json', '.jinja', '.txt'))
  tensors = _safetensors(path) or glob(path, 'pytorch_model*.bin')
  whole = sorted([*settings, *tensors])
  if local_files_only:
    return _copy_on_disk(path, *([whole] if weights else [settings, whole]))
  return local_copy(whole if weights else settings)


def _safetensors(path: epath.Path) -> list[epath.Path]:
  return glob(path, '*.safetensors') or glob(path, '*.safetensors.zst')


def _copy_on_disk(path: epath.Path, *choices: Sequence[epath.Path]) -> epath.Path:
  """Returns the folder with copies of the first of `choices`, files of `path`, that has them."""
  for files in choices:
    if folder := find_local_copy(files):
      return folder
  raise NotLocalError(f'{path} is not on this machine')


def _load_directory(path: epath.Path, mesh: Mesh, dtype: Dtype) -> LanguageModel:
  if huggingface.is_directory(path):
    return huggingface.load_directory(path, mesh, dtype)
  if _safetensors(path):
    raise UserError(f'{path} is a Hugging Face directory without config.json, or without '
                    'model.safetensors or its index')
  return load_orbax_model(path, mesh, dtype)
