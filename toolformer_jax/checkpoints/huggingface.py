"""Reads and writes Hugging Face directories: config.json, weights, tokenizer.json."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from safetensors import SafetensorError

from toolformer_jax.checkpoints.families.registry import family_of, read_config, write_config
from toolformer_jax.checkpoints.families.weights import group_by_tensor
from toolformer_jax.checkpoints.hf_files import (
  SAFETENSORS,
  SAFETENSORS_INDEX,
  file_bytes,
  has_weights,
  open_weights,
  save_tensors,
)
from toolformer_jax.checkpoints.model_card import model_card
from toolformer_jax.checkpoints.packed import (
  QUANTIZATION_CONFIG,
  PackedTensors,
  check_is_not_packed,
)
from toolformer_jax.checkpoints.tensors import build_model, leaf
from toolformer_jax.checkpoints.zstd_files import SUFFIX, compress_file
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_merging import check_mergeable, merge_parameter
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import local_folder, write_text
from toolformer_jax.runtime.run_dir import read_json, write_json
from toolformer_jax.tokenizer import Tokenizer

_CONFIG = 'config.json'
_TOKENIZER_CONFIG, _CHAT_TEMPLATE = 'tokenizer_config.json', 'chat_template.jinja'
_GENERATION_CONFIG = 'generation_config.json'
_FILE_BYTES = 4 * 2**30

_Tensor = TypeVar('_Tensor', np.ndarray, jax.ShapeDtypeStruct)


def is_directory(path: epath.Path) -> bool:
  """Returns whether `path` is a Hugging Face directory with weights in a supported format."""
  return (path / _CONFIG).is_file() and has_weights(path)


def load_directory(path: epath.Path, mesh: Mesh, dtype: str = 'float32') -> LanguageModel:
  """Returns the model of a Hugging Face directory on `mesh`, its weights in float32.

  Args:
    path: has config.json, weights (one file, or an index and its files), and a tokenizer.
    mesh: devices of the model. Each one reads its own shards from the files.
    dtype: dtype of the computation.

  Raises:
    UserError: a file is missing, broken or not supported.
  """
  fields = read_json(path / _CONFIG)
  packed = fields.pop(QUANTIZATION_CONFIG, None)
  family, config = read_config(fields, str(path / _CONFIG))
  def tokenizer() -> Tokenizer:
    loaded = load_tokenizer(path, fields)
    loaded.chat_template = load_chat_template(path)
    return loaded
  config, tensors = config.replace(dtype=dtype), open_weights(path)
  if packed:
    stored = PackedTensors(tensors, packed)
    return build_model(family, config, stored, tokenizer, mesh, stored.read_codes)
  check_is_not_packed(tensors)
  return build_model(family, config, tensors, tokenizer, mesh)


def load_config(path: epath.Path) -> DecoderConfig:
  """Returns the configuration of the decoder in a Hugging Face directory.

  Raises:
    UserError: config.json is broken or not supported.
  """
  fields = read_json(path / _CONFIG)
  fields.pop(QUANTIZATION_CONFIG, None)
  return read_config(fields, str(path / _CONFIG))[1]


def load_tokenizer(path: epath.Path, fields: dict[str, Any]) -> Tokenizer:
  """Returns the tokenizer of a directory. `fields` of its config.json have the special ids.

  Raises:
    UserError: there is none, or it is not supported.
  """
  start = _token_ids(fields, 'bos_token_id', path / _CONFIG)
  ends = _end_ids(path, fields)
  ids = {'bos_id': start[0] if start else None, 'eos_id': ends[0] if ends else None,
         'vocab_size': fields['vocab_size'], 'end_ids': ends}
  if (path / 'tokenizer.json').is_file():
    return Tokenizer.from_file(path / 'tokenizer.json', **ids)
  if not all((path / name).is_file() for name in ('vocab.json', 'merges.txt')):
    raise UserError(f'{path} has no tokenizer: neither tokenizer.json nor GPT-2\'s vocab.json and '
                    'merges.txt')
  return _load_gpt2_tokenizer(path, ids)


def _end_ids(path: epath.Path, fields: dict[str, Any]) -> list[int]:
  """Returns the ids at which a generation ends; the first one ends texts.

  Those of generation_config.json, with which transformers generates, come after those of
  config.json: models that were tuned on conversations often have the end of a turn only there.
  """
  ends = _token_ids(fields, 'eos_token_id', path / _CONFIG)
  file = path / _GENERATION_CONFIG
  if file.is_file():
    ends += _token_ids(read_json(file), 'eos_token_id', file)
  return list(dict.fromkeys(ends))


def _token_ids(fields: dict[str, Any], name: str, file: epath.Path) -> list[int]:
  """Returns a field that is a token id, a list of them, or null."""
  value = fields.get(name)
  values = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
  if not all(type(one) is int and one >= 0 for one in values) or (
      name == 'bos_token_id' and isinstance(value, list)):
    raise UserError(f'{file}: {name} must be a token id, or null')
  return values


def _load_gpt2_tokenizer(path: epath.Path, ids: dict[str, Any]) -> Tokenizer:
  """Returns the tokenizer in vocab.json and merges.txt."""
  vocab = read_json(path / 'vocab.json')
  if (not all(type(i) is int for i in vocab.values())
      or sorted(vocab.values()) != list(range(len(vocab)))):
    raise UserError(f'{path / "vocab.json"}: the ids must be 0, 1, 2, ... without gaps')
  try:
    lines = (path / 'merges.txt').read_bytes().decode().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'cannot read {path / "merges.txt"}: {error}') from error
  merges = [tuple(line.split()) for line in lines if line and not line.startswith('#version')]
  special = [token for token in ('<|endoftext|>',) if token in vocab]
  ends = ids.pop('end_ids')
  try:
    made = Tokenizer.byte_level_bpe(sorted(vocab, key=vocab.__getitem__), merges, special,
                                    split_digits=False, **ids)
    made.end_ids |= set(ends)
    return made
  except Exception as error:  # `tokenizers` raises plain exceptions
    raise UserError(f'{path}: vocab.json and merges.txt are not a tokenizer: {error}') from error


def load_chat_template(path: epath.Path) -> str:
  """Returns the chat template of a directory; '' if there is none.

  Raises:
    UserError: chat_template.jinja or tokenizer_config.json is broken.
  """
  if (path / _CHAT_TEMPLATE).is_file():
    try:
      return (path / _CHAT_TEMPLATE).read_bytes().decode()
    except UnicodeDecodeError as error:
      raise UserError(f'{path / _CHAT_TEMPLATE} is not UTF-8: {error}') from error
  if not (path / _TOKENIZER_CONFIG).is_file():
    return ''
  template = read_json(path / _TOKENIZER_CONFIG).get('chat_template') or ''
  if isinstance(template, list) and all(isinstance(one, dict) for one in template):
    named = [one.get('template') for one in template if one.get('name') == 'default']
    template = named[-1] if named else ''
  if not isinstance(template, str):
    raise UserError(f'{path / _TOKENIZER_CONFIG}: chat_template must be a string, or a list of '
                    'objects with name and template')
  return template


def save_directory(path: epath.Path, model: LanguageModel, *,
                   tensors: Iterator[tuple[str, np.ndarray]] | None = None,
                   quantization: dict[str, Any] | None = None, zstd: bool = False) -> None:
  """Writes `model` as a Hugging Face directory for transformers, with its adapter merged.

  Besides weights, configuration and tokenizer it has generation_config.json and a model card.

  Args:
    path: the directory.
    model: the model.
    tensors: names and values of packed tensors that stand for the weights, see `packed`.
    quantization: how these are packed.
    zstd: compress the weight files, see `zstd_files`.

  Raises:
    UserError: the directory cannot be written, or the adapter cannot be merged.
  """
  model.check_is_float('exported')
  if model.config.adapter:
    check_mergeable(model.config.adapter)
  config = model.config.replace(adapter=None)
  eos_id = model.tokenizer.eos_id
  others = sorted(model.tokenizer.end_ids - {eos_id})
  ids = {'bos_token_id': model.tokenizer.start_id,
         'eos_token_id': [eos_id, *others] if others else eos_id}
  try:
    # The configuration is written last: a directory that has it is complete.
    with local_folder(path, last=_CONFIG) as folder:
      _save_tensors(folder, tensors or exported_tensors(model, config), zstd)
      model.tokenizer.export(folder, config.max_positions)
      write_json(folder / _GENERATION_CONFIG, ids | {'pad_token_id': eos_id, 'do_sample': False})
      write_text(folder / 'README.md', model_card(
          model, is_packed=quantization is not None, is_compressed=zstd))
      packed = {QUANTIZATION_CONFIG: quantization} if quantization else {}
      write_json(folder / _CONFIG, write_config(config) | ids | packed)
  except (OSError, SafetensorError) as error:  # A full disk can raise either.
    raise UserError(f'cannot write {path}: {error}') from error


def exported_tensors(model: LanguageModel, config: DecoderConfig
                     ) -> Iterator[tuple[str, np.ndarray]]:
  """Yields names and values of the tensors of a checkpoint, in float32, with adapters merged.

  Args:
    model: the model.
    config: its configuration without adapters.
  """
  for table in group_by_tensor(family_of(config).weights(config)):
    stacks = [np.asarray(leaf(model.variables['params'], weight.path)) for weight in table]
    if not table[0].of_block:
      yield table[0].name, table[0].to_tensor([stack.astype(np.float32, copy=False)
                                               for stack in stacks])
      continue
    for layer, name in enumerate(table[0].tensor_names(config.layers)):
      yield name, table[0].to_tensor([_merged(model, weight.path, stack[layer], layer)
                                      for weight, stack in zip(table, stacks, strict=True)])


def _merged(model: LanguageModel, path: tuple[str, ...], parameter: np.ndarray,
            layer: int) -> np.ndarray:
  """Returns one layer of a parameter in float32, with its adapter merged."""
  parameter = parameter.astype(np.float32, copy=False)
  if model.config.adapter is None:
    return parameter
  weights = jax.tree.map(lambda stack: stack[layer:layer + 1], model.variables[ADAPTER])
  return np.asarray(merge_parameter(
      model.config.adapter, path, jnp.asarray(parameter[None]), weights))[0]


def weight_bytes(tensors: Mapping[str, jax.ShapeDtypeStruct]) -> int:
  """Returns the size of the files that `save_directory` writes for tensors, in bytes."""
  return sum(map(file_bytes, _in_files(tensors.items())))


def _save_tensors(path: epath.Path, tensors: Iterator[tuple[str, np.ndarray]], zstd: bool
                  ) -> None:
  """Writes `tensors` to one file, or to several files and an index."""
  names: list[str] = []
  where: dict[str, str] = {}
  for part in _in_files(tensors):
    names.append(f'model-{len(names) + 1:05}.safetensors')
    where |= dict.fromkeys(part, names[-1])
    save_tensors({name: np.ascontiguousarray(tensor) for name, tensor in part.items()},
                 path / names[-1])
    part.clear()  # else it is in memory while the next one is read
    if zstd:
      compress_file(path / names[-1])
  if len(names) == 1:
    end = SUFFIX if zstd else ''
    (path / (names[0] + end)).rename(path / (SAFETENSORS + end))
  else:
    write_json(path / SAFETENSORS_INDEX, {'metadata': {}, 'weight_map': where})


def _in_files(tensors: Iterable[tuple[str, _Tensor]]) -> Iterator[dict[str, _Tensor]]:
  """Yields the tensors of each file."""
  part: dict[str, _Tensor] = {}
  size = 0
  for name, tensor in tensors:
    bytes_ = tensor.size * tensor.dtype.itemsize
    if size and size + bytes_ > _FILE_BYTES:
      yield part
      part, size = {}, 0
    part[name] = tensor
    size += bytes_
  yield part
