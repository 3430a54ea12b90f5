"""What a decoder looks like: one frozen dataclass for every family."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

Norm = Literal['layer', 'rms']
Positions = Literal['learned', 'rotary_halves', 'rotary_interleaved']
Activation = Literal['silu', 'gelu_tanh']
Dtype = Literal['float32', 'bfloat16']


@dataclass(frozen=True)
class DecoderConfig:
  """Sizes and switches of a decoder; the defaults are those of the Llama family.

  Attributes:
    vocab_size: rows of the embedding table.
    layers, embed_dim, heads, kv_heads, head_dim, mlp_dim: the usual sizes; `heads` is a multiple
      of `kv_heads`.
    max_positions: longest sequence that the model was trained for.
    norm, norm_eps: layer norm (with bias) or root-mean-square norm.
    positions: a learned table, or rotary embeddings that pair a dimension with the one half a
      head away (Llama) or with its neighbour (GPT-J).
    rotary_dim, rotary_base: how many dimensions of a head turn, and the longest wavelength's base.
    rotary_factor: wavelengths are stretched by it, to reach farther than the model was pretrained.
    rotary_original, rotary_low, rotary_high: of Llama 3, the positions that it was pretrained on;
      wavelengths of more than 1 / low of them are stretched, of less than 1 / high are not, and
      those between in part. 0 positions: all are stretched.
    parallel_block: attention and MLP read the same norm and are added together (GPT-J).
    gated_mlp: the MLP's hidden layer is multiplied by an activated gate.
    qkv_bias, out_bias, mlp_bias, head_bias: which projections have a bias.
    qk_norm: queries and keys are normalised, each head for itself (Qwen 3, Gemma 3).
    sandwich_norm: what attention and MLP give is normalised, too, before it is added (Gemma 3).
    norm_offset: the scale of a norm is kept as its difference from 1 (Gemma).
    scaled_embedding: embeddings are multiplied by the square root of `embed_dim` (Gemma).
    sliding_window: a token of a local layer attends to this many tokens, itself included; 0: all
      layers are global.
    global_every: with a sliding window, each layer whose number (from 1) is a multiple of it is
      global (Gemma 3).
    local_rotary_base: `rotary_base` of local layers, whose wavelengths are not stretched.
    tied_head: the embedding table is also the head.
    lora_rank, lora_alpha: low-rank adapters on every projection of a block; rank 0 for none.
    dtype: of the computation; norms, softmax and log-softmax are always in float32.
  """

  vocab_size: int
  layers: int
  embed_dim: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_dim: int
  max_positions: int
  norm: Norm = 'rms'
  norm_eps: float = 1e-5
  positions: Positions = 'rotary_halves'
  rotary_dim: int = 0
  rotary_base: float = 10_000.0
  rotary_factor: float = 1.0
  rotary_original: int = 0
  rotary_low: float = 1.0
  rotary_high: float = 4.0
  parallel_block: bool = False
  gated_mlp: bool = True
  activation: Activation = 'silu'
  qkv_bias: bool = False
  out_bias: bool = False
  mlp_bias: bool = False
  head_bias: bool = False
  qk_norm: bool = False
  sandwich_norm: bool = False
  norm_offset: bool = False
  scaled_embedding: bool = False
  sliding_window: int = 0
  global_every: int = 1
  local_rotary_base: float = 10_000.0
  tied_head: bool = True
  lora_rank: int = 0
  lora_alpha: float = 16.0
  dtype: Dtype = 'float32'

  def __post_init__(self):
    for name in ('vocab_size', 'layers', 'embed_dim', 'heads', 'kv_heads', 'head_dim', 'mlp_dim',
                 'max_positions', 'global_every'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name} must be positive, not {getattr(self, name)}')
    for name, kind in (('norm', Norm), ('positions', Positions), ('activation', Activation),
                       ('dtype', Dtype)):
      if getattr(self, name) not in get_args(kind):
        raise ValueError(f'{name} must be one of {get_args(kind)}, not {getattr(self, name)!r}')
    if self.heads % self.kv_heads:
      raise ValueError(f'{self.heads} heads cannot share {self.kv_heads} key/value heads')
    if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
      raise ValueError(f'rotary_dim {self.rotary_dim} must be even and at most {self.head_dim}')
    if self.sliding_window < 0 or (self.sliding_window and self.positions == 'learned'):
      raise ValueError(f'sliding_window {self.sliding_window} does not go with positions '
                       f'{self.positions}')
    if self.rotary_factor <= 0 or self.rotary_high <= self.rotary_low:
      raise ValueError(f'rotary_factor {self.rotary_factor} must be positive, and rotary_high '
                       f'{self.rotary_high} more than rotary_low {self.rotary_low}')
    if (self.positions == 'learned') == bool(self.rotary_dim):
      raise ValueError(f'positions {self.positions} do not go with rotary_dim {self.rotary_dim}')

  def replace(self, **changes: Any) -> 'DecoderConfig':
    """Returns a copy with `changes`."""
    return dataclasses.replace(self, **changes)
