"""Saves and loads self-contained models: configuration, tokenizer and all variables.

    config.json                           version of the format, and the fields of DecoderConfig
    tokenizer.json, tokenizer_ids.json    the tokenizer
    variables/                            Orbax checkpoint: 'params', and 'adapter' if it has one
"""

import shutil
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import (
  AdapterConfig,
  LoraConfig,
  adapter_fields,
  adapter_from_fields,
)
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.config import INTEGER_DTYPES, DecoderConfig, Dtype
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder
from toolformer_jax.runtime.paths import as_absolute_path, is_remote, make_directory
from toolformer_jax.runtime.run_dir import read_json, write_json
from toolformer_jax.tokenizer import Tokenizer

MODEL = 'model'  # the folder of the model in the output folder of `finetune`
STEPS = 'steps'  # the folder of the states to resume from
_FORMAT, _CONFIG = 1, 'config.json'
# Fields of DecoderConfig that earlier versions wrote under other names.
_RENAMED = {
    'window': 'sliding_window', 'rotary_factor': 'rotary_scaling_factor',
    'rotary_original': 'rotary_original_positions', 'rotary_low': 'rotary_low_freq_factor',
    'rotary_high': 'rotary_high_freq_factor'}


def save_model(directory: epath.Path, model: LanguageModel) -> None:
  """Writes `model` to `directory`; replaces an existing model.

  On disk the folder is replaced as a whole. In a bucket, where nothing can be renamed, it is the
  configuration, written last, that makes it a model; see `is_model`. If the mesh of the model spans
  several processes, all of them call this.
  """
  directory = as_absolute_path(directory)
  folder = directory if is_remote(directory) else directory.with_name(directory.name + '.tmp')
  first = jax.process_index() == 0
  if first:
    (folder / _CONFIG).unlink(missing_ok=True)
    folder.rmtree(missing_ok=True)
    make_directory(folder)
  multihost_utils.sync_global_devices(f'{folder} is there')
  ocp.save(folder / 'variables', model.variables)
  if first:
    model.tokenizer.save(folder)
    decoder = model.config.record() | {'adapter': adapter_fields(model.config.adapter)}
    write_json(folder / _CONFIG, {'format': _FORMAT, 'decoder': decoder})
    if folder != directory:
      _replace(directory, folder)
  multihost_utils.sync_global_devices(f'{directory} is written')


def is_model(directory: epath.Path) -> bool:
  """Tells whether `directory` has a complete model."""
  return (directory / _CONFIG).exists()


def _replace(directory: epath.Path, temporary: epath.Path) -> None:
  """Renames `temporary` to `directory`, which may exist."""
  # Renamed before it is removed: a folder that is half removed would look like a model.
  old = directory.with_name(directory.name + '.old')
  shutil.rmtree(old, ignore_errors=True)
  if directory.exists():
    directory.rename(old)
  temporary.rename(directory)
  shutil.rmtree(old, ignore_errors=True)


def load_orbax_model(directory: epath.Path, mesh: Mesh, dtype: Dtype = 'float32') -> LanguageModel:
  """Loads a model that `save_model` wrote onto `mesh`, which may differ from the mesh it was on.

  Args:
    directory: of the model, or the output folder of a fine-tuning run.
    mesh: the devices that get the variables.
    dtype: of the computation; the variables are float32, in int8 and int4 those of matrix products
      codes.

  Raises:
    UserError: there is no such model, or it cannot be read.
  """
  directory = as_absolute_path(_model_directory(directory))
  is_integer = dtype in INTEGER_DTYPES  # rounded once the model is read
  config = _read_config(directory / _CONFIG).replace(dtype='float32' if is_integer else dtype)
  decoder = make_decoder(mesh, config)
  try:
    abstract = sharding.abstract_with_sharding(abstract_variables(decoder), mesh)
    tokenizer = Tokenizer.load(directory)
    # In earlier versions the collection of adapters was called 'lora'.
    is_earlier = 'lora_rank' in read_json(directory / _CONFIG)['decoder']
    saved_as = {name: 'lora' if is_earlier and name == ADAPTER else name for name in abstract}
    variables = ocp.load(directory / 'variables',
                         {saved_as[name]: one for name, one in abstract.items()})
    variables = {name: variables[saved_as[name]] for name in abstract}
    _check_finite(variables, directory)
  except UserError:
    raise
  except Exception as error:  # `tokenizers` and Orbax raise many types, depending on the damage
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise UserError(f'the model in {directory} cannot be read ({reason}); save it again'
                    ) from error
  model = LanguageModel(decoder, variables, tokenizer, mesh)
  return model.to_dtype(dtype) if is_integer else model


def _check_finite(variables: dict[str, Any], directory: epath.Path) -> None:
  """Raises UserError for a variable whose numbers are not all finite."""
  finite = jax.jit(lambda tree: jax.tree.map(lambda x: jnp.isfinite(x).all(), tree))(variables)
  for path, is_finite in jax.tree_util.tree_leaves_with_path(finite):
    if not is_finite:
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      raise UserError(f'the model in {directory}: {name} has numbers that are not finite (NaN or '
                      'infinity); its training diverged, so train it again with a smaller step')


def load_orbax_config(directory: epath.Path) -> DecoderConfig:
  """Returns the configuration of the decoder of the model in `directory`.

  Raises:
    UserError: there is no such model, or it cannot be read.
  """
  return _read_config(_model_directory(directory) / _CONFIG)


def load_orbax_tokenizer(directory: epath.Path) -> Tokenizer:
  """Returns the tokenizer of the model in `directory`.

  Raises:
    UserError: there is no such model, or it cannot be read.
  """
  return Tokenizer.load(_model_directory(directory))


def _model_directory(directory: epath.Path) -> epath.Path:
  """Returns `directory`, or the folder of the model in it if it is an output folder."""
  if is_model(directory / MODEL):
    return directory / MODEL
  if (directory / STEPS).is_dir():
    raise UserError(f'the fine-tuning run in {directory} is not finished; start it again to finish '
                    'it')
  return directory


def _read_config(file: epath.Path) -> DecoderConfig:
  try:
    fields = read_json(file)
  except UserError as error:
    raise UserError(f'{file.parent} does not hold a usable model: {error}') from error
  if fields.get('format') != _FORMAT:
    raise UserError(f'{file} has format {fields.get("format")}; this version reads {_FORMAT}')
  try:
    decoder = {_RENAMED.get(name, name): value for name, value in fields['decoder'].items()}
    return DecoderConfig(**decoder | {'adapter': _adapter(decoder)})
  except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{file.parent} does not hold a usable model: config.json: {error}') from error


def _adapter(decoder: dict[str, Any]) -> AdapterConfig | None:
  """Returns the adapter of a saved configuration; removes the fields of earlier versions from it.
  """
  rank, alpha = decoder.pop('lora_rank', 0), decoder.pop('lora_alpha', 16.0)
  if rank:
    return LoraConfig(rank=rank, alpha=alpha)
  fields = decoder.get('adapter')
  return adapter_from_fields(fields) if fields else None
