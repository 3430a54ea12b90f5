"""The configuration of a decoder: one frozen dataclass for every family."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import (
  AdapterConfig,
  PrefixConfig,
  check_modules,
  is_target,
)
from toolformer_jax.runtime.validation import check

Norm = Literal['layer', 'rms']
Positions = Literal['learned', 'rotary_halves', 'rotary_interleaved']
Activation = Literal['silu', 'gelu_tanh']
Dtype = Literal['float32', 'bfloat16', 'int8', 'int4']
INTEGER_DTYPES = ('int8', 'int4')  # of weights that are rounded, for inference only
Bfloat16Parts = Literal['all', 'products', 'none']
# As T5X and MaxText call them: 'minimal' keeps the outputs of all matrix products, 'save_qkv_proj'
# queries, keys and values, 'full' the input of the block alone.
RematPolicy = Literal['minimal', 'save_qkv_proj', 'full']


def check_is_float_dtype(dtype: str, purpose: str) -> None:
  """Checks that the weights of a model are not rounded as it is loaded.

  Args:
    dtype: of the model's computation.
    purpose: what cannot be done with such a model, such as 'trained'.

  Raises:
    UserError: they are.
  """
  if dtype in INTEGER_DTYPES:
    raise UserError(f'a model in {dtype} cannot be {purpose}: its weights are rounded; load it '
                    'with the ModelConfig.dtype float32 or bfloat16')


@dataclass(frozen=True)
class DecoderConfig:
  """Sizes and options of a decoder. The defaults are those of the Llama family.

  Attributes:
    vocab_size: rows of the embedding table.
    layers: number of blocks.
    embed_dim: size of the hidden states.
    heads: query heads, a multiple of `kv_heads`.
    kv_heads: key/value heads. Fewer than `heads` is grouped-query attention.
    head_dim: size of a head.
    mlp_dim: size of the MLP's hidden layer.
    max_positions: longest sequence that the model was trained on, in tokens.
    norm: layer norm with a bias, or root-mean-square norm without one.
    norm_eps: added to the variance in a norm.
    positions: a learned table of embeddings, or rotary embeddings. These rotate pairs of
      dimensions: 'rotary_halves' pairs dimension i with i + rotary_dim / 2 (Llama),
      'rotary_interleaved' pairs neighbours (GPT-J).
    rotary_dim: dimensions of a head that are rotated; 0 with learned positions.
    rotary_base: base of the geometric series of wavelengths (theta).
    rotary_scaling_factor: factor by which wavelengths are stretched, for contexts longer than the
      pretraining length.
    rotary_original_positions: pretraining length of Llama 3's and YaRN's scaling, in tokens. 0
      stretches all wavelengths alike (linear scaling).
    rotary_low_freq_factor: of Llama 3's scaling. Wavelengths longer than
      rotary_original_positions / rotary_low_freq_factor are stretched by the whole factor.
    rotary_high_freq_factor: of Llama 3's scaling. Wavelengths shorter than
      rotary_original_positions / rotary_high_freq_factor are not stretched; between the two bounds
      frequencies are interpolated.
    rotary_beta_fast, rotary_beta_slow: of YaRN's scaling (Peng et al. 2023), 0 for another one.
      Pairs that rotate more than rotary_beta_fast times in the pretraining length are not
      stretched, those that rotate less than rotary_beta_slow times by the whole factor.
    rotary_attention_factor: of YaRN; rotated queries and keys are multiplied by it.
    rotary_divisors: what each pair's frequency is divided by, instead of any of these scalings;
      empty for none.
    attention_scale: what attention scores are multiplied by; 0 stands for head_dim ** -0.5.
    parallel_block: attention and MLP both read the same norm, and their outputs are added (GPT-J).
    gated_mlp: the MLP's hidden layer is multiplied by an activated gate.
    activation: activation function of the MLP.
    qkv_bias, out_bias, mlp_bias, head_bias: whether the projections of queries, keys and values,
      of the attention's output, of the MLP and to the vocabulary have a bias.
    qk_norm: each head's queries and keys are normalised (Qwen 3, Gemma 3).
    sandwich_norm: the outputs of attention and MLP are normalised before they are added to the
      residual stream (Gemma 3).
    norm_offset: norms store their scale as its difference from 1 (Gemma).
    scaled_embedding: embeddings are multiplied by the square root of `embed_dim` (Gemma).
    sliding_window: number of tokens that a token of a local layer attends to, itself included.
      0 makes every layer global.
    global_every: with a sliding window, layers number `global_every`, 2 * `global_every`, ...
      (counted from 1) are global and all others local (Gemma 3).
    local_rotary_base: `rotary_base` of local layers, which do not stretch wavelengths.
    tied_head: the embedding table is also the projection to the vocabulary.
    adapter: kind and settings of the adapter; None for none.
    dtype: dtype of the computation. Norms, softmax and log-softmax are always in float32. In 'int8'
      the products of activations and weights are those of integers (see `int8`), in 'int4' weights
      are computed from 4 bits where they are used (see `int4`), both for inference only; everything
      else is float32.
    bfloat16_parts: what 'bfloat16' computes in bfloat16: all but norms and softmax, only the
      products of activations and weights, or nothing. It follows from the devices and is not a
      property of the model, see `bfloat16.choose_parts`.
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
  rotary_scaling_factor: float = 1.0
  rotary_original_positions: int = 0
  rotary_low_freq_factor: float = 1.0
  rotary_high_freq_factor: float = 4.0
  rotary_beta_fast: float = 0.0
  rotary_beta_slow: float = 0.0
  rotary_attention_factor: float = 1.0
  rotary_divisors: tuple[float, ...] = ()
  attention_scale: float = 0.0
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
  adapter: AdapterConfig | None = None
  dtype: Dtype = 'float32'
  bfloat16_parts: Bfloat16Parts = 'all'

  def __post_init__(self) -> None:
    object.__setattr__(self, 'rotary_divisors', tuple(map(float, self.rotary_divisors)))
    check(self)
    for field in dataclasses.fields(self):
      if field.type is float:  # JAX refuses large integers
        object.__setattr__(self, field.name, float(getattr(self, field.name)))
    for name in ('vocab_size', 'layers', 'embed_dim', 'heads', 'kv_heads', 'head_dim', 'mlp_dim',
                 'max_positions', 'global_every'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name} must be positive, not {getattr(self, name)}')
    if self.heads % self.kv_heads:
      raise ValueError(f'heads {self.heads} must be a multiple of kv_heads {self.kv_heads}')
    if self.sliding_window < 0 or (self.sliding_window and self.positions == 'learned'):
      raise ValueError(f'sliding_window {self.sliding_window} cannot be used with positions '
                       f'{self.positions!r}')
    self._check_rotary()
    if self.adapter:
      check_modules(self.adapter, self.modules)
    if self.max_tokens < 2:
      raise ValueError(f'a prefix of {self.max_positions - self.max_tokens} virtual tokens leaves '
                       f'no room for a text: the model has {self.max_positions} positions')

  def _check_rotary(self) -> None:
    for name in ('rotary_base', 'local_rotary_base'):
      if getattr(self, name) <= 1:
        raise ValueError(f'{name} {getattr(self, name)} must be above 1')
    if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
      raise ValueError(f'rotary_dim {self.rotary_dim} must be even and at most head_dim, '
                       f'{self.head_dim}')
    if self.rotary_scaling_factor <= 0:
      raise ValueError(f'rotary_scaling_factor {self.rotary_scaling_factor} must be positive')
    if self.rotary_high_freq_factor <= self.rotary_low_freq_factor:
      raise ValueError(f'rotary_high_freq_factor {self.rotary_high_freq_factor} must be larger '
                       f'than rotary_low_freq_factor {self.rotary_low_freq_factor}')
    if len(self.rotary_divisors) not in (0, self.rotary_dim // 2):
      raise ValueError(f'there are {len(self.rotary_divisors)} rotary_divisors for rotary_dim '
                       f'{self.rotary_dim}, and there must be half as many')
    if not all(isinstance(x, float) and 0 < x < math.inf for x in self.rotary_divisors):
      raise ValueError('rotary_divisors must be positive numbers')
    if self.rotary_divisors and (self.rotary_scaling_factor != 1 or self.rotary_beta_fast):
      raise ValueError('rotary_divisors cannot be used together with another scaling')
    if self.rotary_beta_fast and not (self.rotary_beta_fast > self.rotary_beta_slow > 0
                                      and self.rotary_original_positions):
      raise ValueError('YaRN needs rotary_beta_fast > rotary_beta_slow > 0 and '
                       'rotary_original_positions')
    if (self.positions == 'learned') == bool(self.rotary_dim):
      raise ValueError(f'positions {self.positions!r} cannot be used with rotary_dim '
                       f'{self.rotary_dim}')

  @property
  def max_tokens(self) -> int:
    """Length of the longest text: all positions but those of a tuned prefix."""
    prefix = self.adapter.num_virtual_tokens if isinstance(self.adapter, PrefixConfig) else 0
    return self.max_positions - prefix

  @property
  def modules(self) -> dict[str, tuple[int, int]]:
    """Numbers of inputs and outputs of the matrix products of a block, by the module's name."""
    queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
    D, F = self.embed_dim, self.mlp_dim
    gate = {'gate': (D, F)} if self.gated_mlp else {}
    return {'query': (D, queries), 'key': (D, keys), 'value': (D, keys), 'out': (queries, D),
            **gate, 'up': (D, F), 'down': (F, D)}

  @property
  def activation_dtype(self) -> str:
    """Dtype of hidden states, keys and values."""
    in_bfloat16 = self.dtype == 'bfloat16' and self.bfloat16_parts == 'all'
    return 'bfloat16' if in_bfloat16 else 'float32'

  @property
  def product_dtype(self) -> str:
    """Dtype in which activations are multiplied by weights that are not int8 codes."""
    in_bfloat16 = self.dtype == 'bfloat16' and self.bfloat16_parts != 'none'
    return 'bfloat16' if in_bfloat16 else 'float32'

  @property
  def adapted_modules(self) -> dict[str, tuple[int, int]]:
    """Those of `modules` that have weights of the adapter."""
    return {name: sizes for name, sizes in self.modules.items() if is_target(self.adapter, name)}

  def record(self) -> dict[str, Any]:
    """Returns the fields that belong to the model and not to its devices, as JSON."""
    fields = dataclasses.asdict(self)
    del fields['bfloat16_parts']
    return fields

  def replace(self, **changes: Any) -> 'DecoderConfig':
    """Returns a copy with `changes`."""
    return dataclasses.replace(self, **changes)
