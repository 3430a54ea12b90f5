"""Self-contained models on disk: configuration, tokenizer and variables (adapters' base included).

    config.json                           version of this format, and the fields of DecoderConfig
    tokenizer.json, tokenizer_ids.json    the tokenizer
    variables/                            an Orbax checkpoint of 'params', and of 'lora' if any
"""

import dataclasses
import json
import pathlib
import shutil

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder
from toolformer_jax.runtime.run_dir import write_json
from toolformer_jax.tokenizer import Tokenizer

MODEL = 'model'  # where an output folder of `finetune` holds the model
STEPS = 'steps'  # where it holds the states to resume from
_FORMAT = 1
# Fields of DecoderConfig by the names that earlier versions wrote.
_RENAMED = {
    'window': 'sliding_window', 'rotary_factor': 'rotary_scaling_factor',
    'rotary_original': 'rotary_original_positions', 'rotary_low': 'rotary_low_freq_factor',
    'rotary_high': 'rotary_high_freq_factor'}


def save_model(directory: pathlib.Path, model: LanguageModel) -> None:
  """Writes `model` to `directory`, which is there whole or not at all; replaces what was there.

  Where the model lies on the devices of several processes, all of them call this.
  """
  temporary = directory.with_name(directory.name + '.tmp')
  first = jax.process_index() == 0
  if first:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_json(temporary / 'config.json',
               {'format': _FORMAT, 'decoder': dataclasses.asdict(model.config)})
    model.tokenizer.save(temporary)
  multihost_utils.sync_global_devices(f'{temporary} is there')
  ocp.save((temporary / 'variables').resolve(), model.variables)
  if first:
    _replace(directory, temporary)
  multihost_utils.sync_global_devices(f'{directory} is written')


def _replace(directory: pathlib.Path, temporary: pathlib.Path) -> None:
  """Puts `temporary` in the place of `directory`."""
  # Moved aside before it is removed: a folder half removed would look like a model.
  old = directory.with_name(directory.name + '.old')
  shutil.rmtree(old, ignore_errors=True)
  if directory.exists():
    directory.rename(old)
  temporary.rename(directory)
  shutil.rmtree(old, ignore_errors=True)


def load_model(directory: pathlib.Path, mesh: Mesh, dtype: str = 'float32') -> LanguageModel:
  """Reads what `save_model` wrote straight onto `mesh`, whatever mesh it was written from.

  Args:
    directory: of the model, or the output folder of a fine-tuning run that holds it.
    mesh: to lay the variables out on.
    dtype: of the computation; the variables stay float32.

  Raises:
    UserError: there is no such model, or it is broken.
  """
  directory = _model_directory(directory)
  config = _read_config(directory / 'config.json').replace(dtype=dtype)
  decoder = make_decoder(mesh, config)
  abstract = sharding.abstract_with_sharding(abstract_variables(decoder), mesh)
  try:
    tokenizer = Tokenizer.load(directory)
    variables = ocp.load((directory / 'variables').resolve(), abstract)
  except UserError:
    raise
  except Exception as error:  # what `tokenizers` and Orbax raise depends on what is broken
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise UserError(f'the model in {directory} cannot be read ({reason}); write it again'
                    ) from error
  return LanguageModel(decoder, variables, tokenizer, mesh)


def load_config(directory: pathlib.Path) -> DecoderConfig:
  """Returns what the decoder of the model in `directory` looks like.

  Raises:
    UserError: there is no such model, or it is broken.
  """
  return _read_config(_model_directory(directory) / 'config.json')


def _model_directory(directory: pathlib.Path) -> pathlib.Path:
  """Returns where the model lies, in `directory` itself or in it as an output folder."""
  if (directory / MODEL).is_dir():
    return directory / MODEL
  if (directory / STEPS).is_dir():
    raise UserError(f'the fine-tuning run in {directory} has not ended; start it again to finish')
  return directory


def _read_config(file: pathlib.Path) -> DecoderConfig:
  try:
    fields = json.loads(file.read_text('utf-8'))
    if fields['format'] != _FORMAT:
      raise UserError(f'{file} has format {fields["format"]}; this version reads {_FORMAT}')
    decoder = {_RENAMED.get(name, name): value for name, value in fields['decoder'].items()}
    return DecoderConfig(**decoder)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'{file.parent} holds no usable model: config.json: {error}') from error
