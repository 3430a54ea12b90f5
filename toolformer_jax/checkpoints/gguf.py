"""Reads GGUF files (llama.cpp's format): configuration, tokenizer, and weights dequantised."""

import pathlib
from typing import Any

import gguf
import numpy as np

from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.tokenizer import Tokenizer

_ARCHITECTURES = ('llama',)
_CONTROL_TOKEN = 3  # gguf's token type of special tokens
_SPLIT_DIGITS = {'smollm': True}  # pre-tokenizers that we know, and whether they split digits


class GgufFile:
  """An open GGUF file."""

  def __init__(self, path: pathlib.Path):
    """Opens the file; its tensors are memory-mapped.

    Raises:
      UserError: it is not a GGUF file, is cut short, or is of an architecture that we do not know.
    """
    self.path = path
    try:
      reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
      raise UserError(f'{path} is not a readable GGUF file: {error}') from error
    self._fields = reader.fields
    self._tensors = {tensor.name: tensor for tensor in reader.tensors}
    self.architecture = self._field('general.architecture')
    if self.architecture not in _ARCHITECTURES:
      raise UserError(f'{path} holds the architecture {self.architecture!r}; '
                      f'known are {", ".join(_ARCHITECTURES)}')

  def _field(self, name: str, default: Any = None) -> Any:
    if name in self._fields:
      return self._fields[name].contents()
    if default is None:
      raise UserError(f'{self.path} has no field {name}')
    return default

  def _size(self, name: str, default: Any = None) -> Any:
    return self._field(f'{self.architecture}.{name}', default)

  def config(self) -> DecoderConfig:
    """Returns the decoder's configuration."""
    heads, embed_dim = self._size('attention.head_count'), self._size('embedding_length')
    head_dim = self._size('attention.key_length', embed_dim // heads)
    if f'{self.architecture}.rope.scaling.type' in self._fields:
      raise UserError(f'{self.path} scales its rotary embeddings, which is not supported')
    return DecoderConfig(
        vocab_size=self._tensors['token_embd.weight'].shape[1].item(),
        layers=self._size('block_count'), embed_dim=embed_dim, heads=heads,
        kv_heads=self._size('attention.head_count_kv', heads), head_dim=head_dim,
        mlp_dim=self._size('feed_forward_length'), max_positions=self._size('context_length'),
        norm_eps=self._size('attention.layer_norm_rms_epsilon'),
        rotary_dim=self._size('rope.dimension_count', head_dim),
        rotary_base=self._size('rope.freq_base', 10_000.0),
        tied_head='output.weight' not in self._tensors)

  def tokenizer(self) -> Tokenizer:
    """Returns the tokenizer that the metadata describe."""
    kind = self._field('tokenizer.ggml.model'), self._field('tokenizer.ggml.pre', 'none')
    if kind[0] != 'gpt2' or kind[1] not in _SPLIT_DIGITS:
      raise UserError(f'{self.path} has a tokenizer of an unknown kind, {kind[0]}/{kind[1]}')
    tokens = self._field('tokenizer.ggml.tokens')
    types = self._field('tokenizer.ggml.token_type')
    merges = [tuple(merge.split(' ')) for merge in self._field('tokenizer.ggml.merges')]
    special = [t for t, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN]
    return Tokenizer.byte_level_bpe(
        tokens, merges, special, split_digits=_SPLIT_DIGITS[kind[1]],
        bos_id=self._field('tokenizer.ggml.bos_token_id'),
        eos_id=self._field('tokenizer.ggml.eos_token_id'))

  def params(self) -> dict[str, Any]:
    """Returns the decoder's parameters as float32 arrays, blocks stacked along a first axis."""
    c = self.config()
    D, H = c.embed_dim, c.head_dim
    def stack(name, convert):
      return np.stack([convert(self._dequantised(f'blk.{i}.{name}.weight'))
                       for i in range(c.layers)])
    def linear(name):
      return {'kernel': stack(name, lambda w: w.T)}
    def heads(name, count, rotary):
      # llama.cpp interleaves the rotary pairs of each head; ours are a half head apart.
      unpermute = lambda w: w.reshape(count, H // 2, 2, D).swapaxes(1, 2)  # noqa: E731
      return {'kernel': stack(name, lambda w: (unpermute(w) if rotary else w)
                              .reshape(count, H, D).transpose(2, 0, 1))}
    out = {'kernel': stack('attn_output', lambda w: w.T.reshape(c.heads, H, D))}
    attention = {'query': heads('attn_q', c.heads, True), 'key': heads('attn_k', c.kv_heads, True),
                 'value': heads('attn_v', c.kv_heads, False), 'out': out}
    mlp = {'gate': linear('ffn_gate'), 'up': linear('ffn_up'), 'down': linear('ffn_down')}
    same = lambda w: w  # noqa: E731
    params = {
        'embedding': self._dequantised('token_embd.weight'),
        'blocks': {'attention': attention, 'mlp': mlp,
                   'attention_norm': {'scale': stack('attn_norm', same)},
                   'mlp_norm': {'scale': stack('ffn_norm', same)}},
        'final_norm': {'scale': self._dequantised('output_norm.weight')}}
    if not c.tied_head:
      params['head'] = {'kernel': self._dequantised('output.weight').T}
    return params

  def _dequantised(self, name: str) -> np.ndarray:
    """Returns one tensor in float32, in the row-major shape of its matrix."""
    if name not in self._tensors:
      raise UserError(f'{self.path} has no tensor {name}')
    tensor = self._tensors[name]
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
