"""Writes GGUF files, which llama.cpp and what is built on it read: weights, settings, tokenizer.

Names, order of rows, and which tensors stay in float32 are those of llama.cpp's own converter.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import gguf
import numpy as np
from etils import epath

from toolformer_jax.checkpoints.families.registry import family_of, write_config
from toolformer_jax.checkpoints.families.weights import group_by_tensor
from toolformer_jax.checkpoints.gguf_names import (
  GPT2_FIELDS,
  LLAMA_FIELDS,
  ROPE_FACTORS,
  is_interleaved,
  is_transposed,
  transformers_names,
)
from toolformer_jax.checkpoints.gguf_tokenizer import tokenizer_fields
from toolformer_jax.checkpoints.huggingface import exported_tensors
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.models.adapter_merging import check_mergeable
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.models.rotary import rotary_frequencies
from toolformer_jax.runtime.paths import as_path, local_folder

FORMATS = ('safetensors', 'gguf')
QUANTIZATIONS = ('f16', 'bf16', 'q8_0', 'q4_0', 'q4_1')
GGUF_FILE = 'model.gguf'

_ARCHITECTURES = ('llama', 'qwen2', 'qwen3', 'gpt2')
_F32, _F16 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16
# In files of 4 bits, what each token reads and writes has 8, as llama.cpp's `quantize` has more.
_FINER = {'q4_0': gguf.GGMLQuantizationType.Q8_0, 'q4_1': gguf.GGMLQuantizationType.Q8_0}
_FINER_TENSORS = ('token_embd.weight', 'output.weight')
_POSITIONS = 'position_embd.weight'
_YARN = {'beta_fast': 32.0, 'beta_slow': 1.0}  # what llama.cpp assumes


def check_format(format: str, quantization: str | None, adapter_of: str | None = None) -> None:
  """Checks the options of an export.

  Raises:
    UserError: the format or the quantization is unknown, or they do not fit each other.
  """
  if format not in FORMATS:
    raise unknown('format', format, FORMATS)
  if format == 'gguf' and adapter_of:
    raise UserError('adapters alone cannot be written as GGUF; leave out the format or the adapter')
  if quantization and format != 'gguf':
    raise UserError(f'the quantization {quantization} needs the format gguf')
  if quantization and quantization not in QUANTIZATIONS:
    raise unknown('quantization', quantization, QUANTIZATIONS)


def save_gguf(path: epath.Path, model: LanguageModel, quantization: str = 'f16') -> None:
  """Writes `model` to the file `model.gguf` of a folder, with its adapter merged.

  Args:
    path: the folder.
    model: a model of the Llama, Qwen 2, Qwen 3 or GPT-2 family with a byte-level tokenizer.
    quantization: of the matrices, one of QUANTIZATIONS. Those whose rows are no whole
      blocks of 32 become f16. With q4_0 and q4_1, embeddings and the projection to the vocabulary
      become q8_0. Norms, biases and position embeddings stay in float32.

  Raises:
    UserError: llama.cpp has no such model or tokenizer, the adapter cannot be merged, or the file
      cannot be written.
  """
  model.check_is_float('exported')
  if model.config.adapter:
    check_mergeable(model.config.adapter)
  config = model.config.replace(adapter=None)
  architecture = _architecture(config)
  fields = _fields(config, architecture, quantization) | {
      'general.name': as_path(model.source).name or 'toolformer',
      **{f'tokenizer.ggml.{name}': value for name, value
         in tokenizer_fields(model.tokenizer, config.vocab_size).items()}}
  if model.tokenizer.chat_template:
    fields['tokenizer.chat_template'] = model.tokenizer.chat_template
  try:
    with local_folder(path, last=GGUF_FILE) as folder:
      unfinished = folder / f'{GGUF_FILE}.tmp'
      writer = gguf.GGUFWriter(unfinished, architecture)
      for name, value in fields.items():
        _add_field(writer, name, value)
      _write(writer, model, config, architecture, quantization)
      unfinished.rename(folder / GGUF_FILE)
  except OSError as error:
    raise UserError(f'cannot write {path}: {error}') from error


def _architecture(config: DecoderConfig) -> str:
  """Returns what llama.cpp calls the family of a model."""
  name = family_of(config).model_type
  if name not in _ARCHITECTURES or (name == 'qwen3' and config.qkv_bias):
    raise UserError(f'a {name} model with these settings cannot be written as GGUF, only '
                    f'{", ".join(_ARCHITECTURES)}; leave out --format gguf, and use llama.cpp\'s '
                    'converter')
  return name


def _fields(config: DecoderConfig, architecture: str, quantization: str) -> dict[str, Any]:
  """Returns the metadata of a file, but those of the tokenizer."""
  kind = quantization.upper()
  known = GPT2_FIELDS if architecture == 'gpt2' else LLAMA_FIELDS
  theirs = write_config(config)
  own = {name: theirs[field] for name, field in known.items() if field in theirs}
  own['vocab_size'] = config.vocab_size
  if architecture != 'gpt2':
    own |= {'rope.dimension_count': config.rotary_dim, 'attention.value_length': config.head_dim}
    own |= _rope_scaling(theirs['rope_scaling'])
  return {
      'general.type': 'model', 'general.file_type': int(gguf.LlamaFileType[f'MOSTLY_{kind}']),
      'general.quantization_version': gguf.GGML_QUANT_VERSION,
      **{f'{architecture}.{name}': value for name, value in own.items()}}


def _rope_scaling(scaling: dict[str, Any] | None) -> dict[str, Any]:
  """Returns the metadata of scaled rotary embeddings; those of others are in a tensor."""
  kind = (scaling or {}).get('rope_type')
  if scaling is None or kind in ('llama3', 'longrope'):
    return {}
  found = {'rope.scaling.type': kind, 'rope.scaling.factor': scaling['factor']}
  if kind == 'yarn':
    expected = 0.1 * np.log(max(scaling['factor'], 1.0)) + 1
    if (not np.isclose(scaling['attention_factor'], expected)
        or any(scaling[name] != value for name, value in _YARN.items())):
      raise UserError('YaRN with settings other than its defaults cannot be written as GGUF; leave '
                      'out --format gguf')
    found['rope.scaling.original_context_length'] = scaling['original_max_position_embeddings']
  return found


def _rope_factors(config: DecoderConfig) -> np.ndarray | None:
  """Returns what the frequency of each rotary pair is divided by, if a tensor must say it."""
  llama3 = config.rotary_original_positions and not config.rotary_beta_fast
  if not (config.rotary_divisors or llama3):
    return None
  plain = config.replace(
      rotary_divisors=(), rotary_scaling_factor=1.0, rotary_original_positions=0)
  return np.asarray(rotary_frequencies(plain) / rotary_frequencies(config), np.float32)


def _add_field(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
  """Adds a field of the metadata in the type that llama.cpp expects."""
  add: dict[type, Callable[[str, Any], None]] = {
      bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
      str: writer.add_string, list: writer.add_array}
  add[type(value)](name, value)


def _write(writer: gguf.GGUFWriter, model: LanguageModel, config: DecoderConfig, architecture: str,
           quantization: str) -> None:
  """Writes all tensors, one after the other, so that a single one of them is in memory."""
  factors = _rope_factors(config)
  if factors is not None:
    writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes, _F32)
  names = {theirs: name for name, theirs in transformers_names(architecture, config.layers).items()}
  for theirs, shape in _shapes(config):
    shape = shape[::-1] if is_transposed(architecture, theirs) else shape
    kind = _kind(names[theirs], shape, quantization)
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    writer.add_tensor_info(names[theirs], shape, np.dtype(np.float32),
                           math.prod(shape) // block * block_bytes, kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_ti_data_to_file()
  if factors is not None:
    writer.write_tensor_data(factors)
  for theirs, tensor in exported_tensors(model, config):
    laid_out = _laid_out(theirs, tensor, config, architecture)
    writer.write_tensor_data(gguf.quantize(
        laid_out, _kind(names[theirs], laid_out.shape, quantization)))
  writer.close()


def _shapes(config: DecoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
  """Yields names and shapes of the tensors in the order of `exported_tensors`."""
  for group in group_by_tensor(family_of(config).weights(config)):
    for name in group[0].tensor_names(config.layers):
      yield name, group[0].shape


def _kind(name: str, shape: tuple[int, ...], quantization: str) -> gguf.GGMLQuantizationType:
  """Returns the type in which a tensor is stored."""
  if len(shape) == 1 or name == _POSITIONS:
    return _F32
  kind = gguf.GGMLQuantizationType[quantization.upper()]
  if name in _FINER_TENSORS:
    kind = _FINER.get(quantization, kind)
  block, _ = gguf.GGML_QUANT_SIZES[kind]
  return kind if shape[-1] % block == 0 else _F16


def _laid_out(name: str, tensor: np.ndarray, config: DecoderConfig, architecture: str
              ) -> np.ndarray:
  """Returns a tensor of transformers as llama.cpp lays it out."""
  if is_transposed(architecture, name):
    return np.ascontiguousarray(tensor.T)
  if is_interleaved(architecture, name):
    heads = config.kv_heads if '.k_proj.' in name else config.heads
    halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.shape)
  return np.ascontiguousarray(tensor)
