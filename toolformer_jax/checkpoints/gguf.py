"""Reads GGUF files (the format of llama.cpp): configuration, tokenizer and dequantized weights.

The metadata are converted to the fields of a config.json, and the tensors to the names and shapes
of transformers, so that the families of `checkpoints/families` read both formats.
"""

from typing import Any

import gguf
import numpy as np
from etils import epath
from jax.sharding import Mesh

from toolformer_jax.checkpoints.families.family import Family
from toolformer_jax.checkpoints.families.registry import read_config
from toolformer_jax.checkpoints.gguf_names import (
  GPT2_FIELDS,
  LLAMA_DEFAULTS,
  LLAMA_FIELDS,
  MODEL_TYPES,
  ROPE_FACTORS,
  is_interleaved,
  is_transposed,
  transformers_names,
)
from toolformer_jax.checkpoints.gguf_tokenizer import read_tokenizer
from toolformer_jax.checkpoints.tensors import Header, build_model
from toolformer_jax.data.content_hash import gguf_parts
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tokenizer import Tokenizer

_MAX_LAYERS = 10_000  # A damaged file must not make us list more names than fit in memory.
_GEMMA_27B_LAYERS = 62


def load_gguf(path: epath.Path, mesh: Mesh, dtype: str = 'float32') -> LanguageModel:
  """Returns the model of a GGUF file on `mesh`, its weights in float32.

  Raises:
    UserError: it is broken or not supported.
  """
  file = GgufFile(path)
  family, config = file.read_config()
  return build_model(family, config.replace(dtype=dtype), file, file.tokenizer, mesh)


def _open(path: epath.Path) -> gguf.GGUFReader:
  try:
    return gguf.GGUFReader(path)
  except (OSError, ValueError, IndexError, KeyError) as error:
    raise UserError(f'{path} is not a readable GGUF file: {error}') from error


class GgufFile:
  """An open GGUF file. Its tensors have the names of transformers.

  Attributes:
    where: its path.
    architecture: the architecture, as llama.cpp calls it.
    headers: shape and dtype of all tensors, by name.
  """

  def __init__(self, path: epath.Path):
    """Opens the file. Its tensors are memory-mapped.

    Raises:
      UserError: it is not a GGUF file, is truncated, or has an unsupported architecture.
    """
    self.where = str(path)
    reader = _open(path)
    self._fields = reader.fields
    if self._integer('split.no', 0):
      self._other_parts(path)  # refuses it by name: only the first part has the other fields
    self.architecture = self._field('general.architecture')
    if not isinstance(self.architecture, str) or self.architecture not in MODEL_TYPES:
      raise UserError(f'{path} has the architecture {self.architecture!r}; '
                      f'supported are {", ".join(MODEL_TYPES)}')
    tensors = [*reader.tensors, *(tensor for part in self._other_parts(path)
                                  for tensor in _open(part).tensors)]
    layers = min(self._integer(f'{self.architecture}.block_count'), _MAX_LAYERS)
    names = transformers_names(self.architecture, layers)
    self._tensors = {names.get(tensor.name, tensor.name): tensor for tensor in tensors}
    self._rope_factors = self._take_rope_factors()
    # Dequantized tensors are float32.
    self.headers = {name: Header(self._shape(name), 'float32') for name in self._tensors}

  def _take_rope_factors(self) -> tuple[float, ...] | None:
    """Returns what the frequencies of rotary embeddings are divided by; None if nothing."""
    if (tensor := self._tensors.pop(ROPE_FACTORS, None)) is None:
      return None
    if len(tensor.shape) != 1:
      raise UserError(f'{self.where}: the tensor {ROPE_FACTORS} must have one dimension, not '
                      f'{len(tensor.shape)}')
    return tuple(map(float, tensor.data))

  def _other_parts(self, path: epath.Path) -> list[epath.Path]:
    """Returns the other files of a model that is split, of which this must be the first."""
    if self._integer('split.count', 1) == 1:
      return []
    parts = gguf_parts(path)
    if self._integer('split.no', 0) or not parts or path != parts[0]:
      raise UserError(f'{path} is a part of a model that is split; give the first part'
                      + (f', {parts[0].name}' if parts else ', whose name ends with '
                         '-00001-of-0000N.gguf'))
    if missing := [part for part in parts if not part.is_file()]:
      raise UserError(f'{path} is the first of {len(parts)} parts, and {missing[0].name} is not '
                      'in the same directory')
    return parts[1:]

  def _field(self, name: str, default: Any = None) -> Any:
    if name in self._fields:
      try:
        return self._fields[name].contents()
      except ValueError as error:
        raise UserError(f'{self.where}: the field {name} cannot be read: {error}') from error
    if default is None:
      raise UserError(f'{self.where} has no field {name}')
    return default

  def _integer(self, name: str, default: Any = None) -> int:
    value = self._field(name, default)
    if not isinstance(value, int) or value < 0:
      raise UserError(f'{self.where}: the field {name} must be a non-negative integer')
    return value

  def read_config(self) -> tuple[Family, DecoderConfig]:
    """Returns the model family and the configuration of the decoder.

    Raises:
      UserError: a field is missing, wrong or not supported.
    """
    kind = MODEL_TYPES[self.architecture]
    known = GPT2_FIELDS if kind == 'gpt2' else LLAMA_FIELDS
    start = f'{self.architecture}.'
    epsilon = 'layer_norm_epsilon' if kind == 'gpt2' else 'layer_norm_rms_epsilon'
    self._field(f'{start}attention.{epsilon}')  # llama.cpp requires it, config.json does not
    fields: dict[str, Any] = {
        'model_type': kind, 'tie_word_embeddings': 'lm_head.weight' not in self._tensors}
    if kind != 'gpt2':
      fields |= LLAMA_DEFAULTS
    for name in self._fields:
      if name.startswith(start):
        theirs = known.get(name.removeprefix(start), name)
        fields |= {theirs: self._field(name)} if theirs else {}
    if kind == 'gpt2':
      fields |= {'activation_function': 'gelu_new'}
    elif kind == 'gemma3_text':
      # In all but the largest model, llama.cpp scales attention scores by the size of a head.
      scalar = self._field(start + 'attention.key_length')
      if fields.get('num_hidden_layers') == _GEMMA_27B_LAYERS:
        scalar = fields['hidden_size'] / max(fields['num_attention_heads'], 1)
      fields |= {'hidden_activation': 'gelu_pytorch_tanh', 'query_pre_attn_scalar': scalar}
    else:
      fields |= {'hidden_act': 'silu'}
    if kind == 'llama':  # no field says which projections have a bias
      fields |= {'attention_bias': 'model.layers.0.self_attn.q_proj.bias' in self._tensors,
                 'mlp_bias': 'model.layers.0.mlp.down_proj.bias' in self._tensors}
    fields['rope_scaling'] = self._rope_scaling(start + 'rope.scaling.')
    family, config = read_config(fields | {'vocab_size': self._vocab_size()}, self.where)
    if self._rope_factors is not None:
      config = self._with_rope_factors(config, self._rope_factors)
    for name in ('rope.dimension_count', 'attention.value_length'):
      if self._field(start + name, config.head_dim) != config.head_dim:
        raise UserError(f'{self.where}: {start}{name} differs from the size of a head, which is '
                        'not supported')
    return family, config

  def _with_rope_factors(self, config: DecoderConfig, factors: tuple[float, ...]
                         ) -> DecoderConfig:
    """Returns `config` with frequencies divided by `factors`, and by that of linear scaling."""
    if not config.rotary_original_positions:  # linear
      factors = tuple(factor * config.rotary_scaling_factor for factor in factors)
      config = config.replace(rotary_scaling_factor=1.0)
    try:
      return config.replace(rotary_divisors=factors)
    except ValueError as error:
      raise UserError(f'{self.where}: {ROPE_FACTORS} does not fit the model: {error}') from error

  def _rope_scaling(self, start: str) -> dict[str, Any] | None:
    """Returns the field `rope_scaling` of a config.json."""
    factor = self._field(start + 'factor', 1.0) or 1.0
    scaling = self._field(start + 'type', 'linear')
    if scaling == 'none' or factor == 1:
      return None
    original = start + 'original_context_length'
    length = {} if scaling != 'yarn' or original not in self._fields else {
        'original_max_position_embeddings': self._field(original)}
    return {'rope_type': scaling, 'factor': factor, **length}

  def tokenizer(self) -> Tokenizer:
    """Returns the tokenizer that the metadata describe.

    Raises:
      UserError: it is broken or not supported.
    """
    def field(name: str, default: Any = None) -> Any:
      return self._field(f'tokenizer.ggml.{name}', default)
    tokenizer = read_tokenizer(field, self.where, self._vocab_size())
    template = self._field('tokenizer.chat_template', '')
    if not isinstance(template, str):
      raise UserError(f'{self.where}: the field tokenizer.chat_template must be a string')
    tokenizer.chat_template = template
    return tokenizer

  def _vocab_size(self) -> int:
    """Returns the number of rows of the embedding table."""
    for name in ('model.embed_tokens.weight', 'transformer.wte.weight'):
      if name in self.headers:
        return self.headers[name].shape[0]
    raise UserError(f'{self.where} lacks the tensor token_embd.weight')

  def _shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of a tensor in transformers. In the file, the fastest axis is first."""
    shape = tuple(self._tensors[name].shape.tolist())
    return shape if is_transposed(self.architecture, name) else shape[::-1]

  def read(self, name: str) -> np.ndarray:
    """Returns one tensor in float32.

    Raises:
      UserError: its quantization is not supported.
    """
    tensor = self._tensors[name]
    try:
      found = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError as error:
      raise UserError(f'{self.where}: the tensor {tensor.name} is quantized as '
                      f'{tensor.tensor_type.name}, which is not supported') from error
    if is_transposed(self.architecture, name):
      return found.T
    if self.architecture == 'gemma3' and name.endswith('norm.weight'):
      return found - 1  # transformers stores the difference from 1.
    if is_interleaved(self.architecture, name):
      return self._deinterleave(name, found)
    return found

  def _deinterleave(self, name: str, tensor: np.ndarray) -> np.ndarray:
    """Reorders the rows of each head: the two dimensions of a pair are half a head apart."""
    heads = self._integer('llama.attention.head_count')
    if '.k_proj.' in name:
      heads = self._integer('llama.attention.head_count_kv', heads)
    pairs = tensor.reshape(heads, -1, 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)
