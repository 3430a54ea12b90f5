"""Reads GGUF files (llama.cpp's format): configuration, tokenizer, and weights dequantised.

A file is read as if it were a Hugging Face directory: its fields as those of config.json, its
tensors under the names, and laid out, as transformers has them.
"""

import pathlib
from typing import Any

import gguf
import numpy as np
from jax.sharding import Mesh

from toolformer_jax.checkpoints.gguf_tokenizer import read_tokenizer
from toolformer_jax.checkpoints.hf_config import read_config
from toolformer_jax.checkpoints.tensors import Header, load
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tokenizer import Tokenizer

_TYPES = {'llama': 'llama', 'qwen2': 'qwen2', 'qwen3': 'qwen3', 'gemma3': 'gemma3_text',
          'gpt2': 'gpt2'}
# Fields of an architecture, and what config.json calls them; '' where that says nothing.
_LLAMA_FIELDS = {
    'block_count': 'num_hidden_layers', 'embedding_length': 'hidden_size',
    'feed_forward_length': 'intermediate_size', 'attention.head_count': 'num_attention_heads',
    'attention.head_count_kv': 'num_key_value_heads', 'attention.key_length': 'head_dim',
    'attention.layer_norm_rms_epsilon': 'rms_norm_eps', 'context_length': 'max_position_embeddings',
    'rope.freq_base': 'rope_theta', 'rope.freq_base_swa': 'rope_local_base_freq',
    'attention.sliding_window': 'sliding_window', 'attention.value_length': '', 'vocab_size': '',
    'rope.dimension_count': '', 'rope.scaling.type': '', 'rope.scaling.factor': ''}
_GPT2_FIELDS = {
    'block_count': 'n_layer', 'embedding_length': 'n_embd', 'feed_forward_length': 'n_inner',
    'attention.head_count': 'n_head', 'attention.layer_norm_epsilon': 'layer_norm_epsilon',
    'context_length': 'n_positions', 'vocab_size': ''}
# Names of transformers' tensors and of theirs; a layer's begin with `blk.`.
_LLAMA_NAMES = {
    'model.embed_tokens': 'token_embd', 'model.norm': 'output_norm', 'lm_head': 'output'}
_LLAMA_BLOCK = {
    'input_layernorm': 'attn_norm', 'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v', 'self_attn.o_proj': 'attn_output',
    'self_attn.q_norm': 'attn_q_norm', 'self_attn.k_norm': 'attn_k_norm',
    'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up', 'mlp.down_proj': 'ffn_down'}
_GPT2_NAMES = {'transformer.wte': 'token_embd', 'transformer.wpe': 'position_embd',
               'transformer.ln_f': 'output_norm', 'lm_head': 'output'}
_GPT2_BLOCK = {'ln_1': 'attn_norm', 'attn.c_attn': 'attn_qkv', 'attn.c_proj': 'attn_output',
               'ln_2': 'ffn_norm', 'mlp.c_fc': 'ffn_up', 'mlp.c_proj': 'ffn_down'}
_MOST_LAYERS = 10_000  # a damaged file shall not name more tensors than fit in memory
_GEMMA_27B_LAYERS = 62


def load_gguf(path: pathlib.Path, mesh: Mesh, dtype: str = 'float32') -> LanguageModel:
  """Returns the model of a GGUF file on `mesh`, its weights in float32.

  Raises:
    UserError: it is broken, or not understood.
  """
  file = GgufFile(path)
  return load(_TYPES[file.architecture], file.config().replace(dtype=dtype), file.tokenizer(),
              file, mesh)


class GgufFile:
  """An open GGUF file; its tensors are named as in transformers.

  Attributes:
    where: its path.
    architecture: llama.cpp's name of it.
    headers: shape and dtype of all tensors, by name.
  """

  def __init__(self, path: pathlib.Path):
    """Opens the file; its tensors are memory-mapped.

    Raises:
      UserError: it is not a GGUF file, is cut short, or is of an architecture that we do not know.
    """
    self.where = str(path)
    try:
      reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
      raise UserError(f'{path} is not a readable GGUF file: {error}') from error
    self._fields = reader.fields
    self.architecture = self._field('general.architecture')
    if self.architecture not in _TYPES:
      raise UserError(f'{path} holds the architecture {self.architecture!r}; '
                      f'known are {", ".join(_TYPES)}')
    names = self._names()
    self._tensors = {names.get(tensor.name, tensor.name): tensor for tensor in reader.tensors}
    # Dequantised they are all float32.
    self.headers = {name: Header(self._shape(name), 'float32') for name in self._tensors}

  def _field(self, name: str, default: Any = None) -> Any:
    if name in self._fields:
      try:
        return self._fields[name].contents()
      except ValueError as error:
        raise UserError(f'{self.where}: the field {name} is broken: {error}') from error
    if default is None:
      raise UserError(f'{self.where} has no field {name}')
    return default

  def _names(self) -> dict[str, str]:
    """Returns the names of transformers by those of the file."""
    plain, block, prefix = _LLAMA_NAMES, _LLAMA_BLOCK, 'model.layers'
    if self.architecture == 'gpt2':
      plain, block, prefix = _GPT2_NAMES, _GPT2_BLOCK, 'transformer.h'
    elif self.architecture == 'gemma3':
      block = block | {
          'post_attention_layernorm': 'post_attention_norm', 'pre_feedforward_layernorm':
          'ffn_norm', 'post_feedforward_layernorm': 'post_ffw_norm'}
    else:
      block = block | {'post_attention_layernorm': 'ffn_norm'}
    layers = range(min(self._field(f'{self.architecture}.block_count'), _MOST_LAYERS))
    pairs = [*plain.items(), *((f'{prefix}.{i}.{theirs}', f'blk.{i}.{name}')
                               for i in layers for theirs, name in block.items())]
    return {f'{name}.{part}': f'{theirs}.{part}'
            for theirs, name in pairs for part in ('weight', 'bias')}

  def config(self) -> DecoderConfig:
    """Returns the decoder's configuration.

    Raises:
      UserError: a field is missing, or is not understood.
    """
    kind = _TYPES[self.architecture]
    fields = {'model_type': kind, 'tie_word_embeddings': 'lm_head.weight' not in self._tensors}
    known = _GPT2_FIELDS if kind == 'gpt2' else _LLAMA_FIELDS
    start = f'{self.architecture}.'
    for name in self._fields:
      if name.startswith(start):
        theirs = known.get(name.removeprefix(start), name)
        fields |= {theirs: self._field(name)} if theirs else {}
    if kind == 'gpt2':
      fields |= {'activation_function': 'gelu_new'}
    elif kind == 'gemma3_text':
      # Except in the largest, llama.cpp scales scores by the size of a head.
      if fields.get('num_hidden_layers') == _GEMMA_27B_LAYERS:
        raise UserError(f'{self.where} is a Gemma 3 of 27B, which is not supported')
      fields |= {'hidden_activation': 'gelu_pytorch_tanh',
                 'query_pre_attn_scalar': self._field(start + 'attention.key_length')}
    else:
      fields |= {'hidden_act': 'silu'}
    factor = self._field(start + 'rope.scaling.factor', 1.0) or 1.0
    scaling = self._field(start + 'rope.scaling.type', 'linear')
    if scaling != 'none' and factor != 1:
      fields['rope_scaling'] = {'rope_type': scaling, 'factor': factor}
    config = read_config(fields | {'vocab_size': self._vocab_size()}, self.where)[1]
    for name in ('rope.dimension_count', 'attention.value_length'):
      if self._field(start + name, config.head_dim) != config.head_dim:
        raise UserError(f'{self.where}: {start}{name} differs from the size of a head, which is '
                        'not supported')
    return config

  def tokenizer(self) -> Tokenizer:
    """Returns the tokenizer that the metadata describe.

    Raises:
      UserError: it is of an unknown kind.
    """
    def field(name, default=None):
      return self._field(f'tokenizer.ggml.{name}', default)
    return read_tokenizer(field, self.where, self._vocab_size())

  def _vocab_size(self) -> int:
    """Returns the number of rows of the embedding table.

    Raises:
      UserError: there is none.
    """
    for name in ('model.embed_tokens.weight', 'transformer.wte.weight'):
      if name in self.headers:
        return self.headers[name].shape[0]
    raise UserError(f'{self.where} lacks the tensor token_embd.weight')

  def _transposed(self, name: str) -> bool:
    """Tells whether transformers has a tensor's axes the other way round: GPT-2's matrices."""
    return self.architecture == 'gpt2' and name.endswith('.weight') and '.c_' in name

  def _shape(self, name: str) -> tuple[int, ...]:
    """Returns a tensor's shape in transformers; the file has the fastest axis first."""
    shape = tuple(self._tensors[name].shape.tolist())
    return shape if self._transposed(name) else shape[::-1]

  def read(self, name: str) -> np.ndarray:
    """Returns one tensor in float32.

    Raises:
      UserError: it is quantised in a way that is not known.
    """
    tensor = self._tensors[name]
    try:
      found = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError as error:
      raise UserError(f'{self.where}: the tensor {tensor.name} is quantised as '
                      f'{tensor.tensor_type.name}, which is not supported') from error
    if self._transposed(name):
      return found.T
    if self.architecture == 'gemma3' and name.endswith('norm.weight'):
      return found - 1  # transformers keeps the difference from 1
    if self.architecture == 'llama' and ('.q_proj.' in name or '.k_proj.' in name):
      return self._halved(name, found)
    return found

  def _halved(self, name: str, tensor: np.ndarray) -> np.ndarray:
    """Undoes llama.cpp's interleaving of the rotary pairs of Llama's heads: theirs are a half head
    apart in transformers.
    """
    heads = self._field('llama.attention.head_count')
    if '.k_proj.' in name:
      heads = self._field('llama.attention.head_count_kv', heads)
    pairs = tensor.reshape(heads, -1, 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)
