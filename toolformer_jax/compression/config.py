"""What is removed from a model. Importing this module does not load JAX."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from toolformer_jax.errors import UserError
from toolformer_jax.models.weight_groups import GROUP_SIZES
from toolformer_jax.runtime.validation import check

UnitScores = Literal['magnitude', 'activation', 'taylor']
WeightScores = Literal['magnitude', 'wanda', 'gradient']
Pattern = Literal['unstructured', '2:4']
Bits = Literal['all', 'int8', 'int4', 'mixed']
Rounding = Literal['nearest', 'gptq']


@dataclass(frozen=True)
class CompressionConfig:
  """What is removed from a model: layers first, then heads and channels, weights, and bits.

  By default nothing is.

  Attributes:
    layers: number of layers that are kept: those of the largest block influence (ShortGPT, Men et
      al. 2024). 0 keeps all.
    keep_layers: numbers of the layers that are kept, from 0 on; instead of `layers`.
    kv_heads: number of key/value heads that are kept in each layer, with the query heads that
      belong to them. 0 keeps all.
    mlp_dim: number of channels of the MLP's hidden layer that are kept in each layer. 0 keeps all.
    unit_scores: how heads and channels are ranked: by the norm of their weights, by that of what
      they add to the residual stream, or by the first-order change of the loss if they are removed
      (Molchanov et al. 2019).
    sparsity: share of the weights of each matrix of a block that become zero.
    pattern: 'unstructured', or '2:4': two of each four neighbouring inputs of an output.
    weight_scores: how weights are ranked: by magnitude within a matrix; or within an output, by
      magnitude times the norm of the input (Wanda, Sun et al. 2024) or by the first-order change of
      the loss if they become zero, magnitude times gradient (Molchanov et al. 2019).
    bits: bits of each weight in the matrices: 'all', 'int8' (a scale for each output), 'int4' (a
      scale for each group of inputs), or 'mixed': either, by layer. Embeddings and the projection
      to the vocabulary have 8 in all of these.
    weight_bytes: largest size of the weight files, for the bits 'mixed'. As many layers as must
      have 4 bits, those whose rounding raises the loss of the calibration texts least.
    group_size: number of inputs that share a scale in 4 bits; it divides those of every matrix.
    rounding: to the nearest value, or so that a matrix product changes least on the calibration
      texts (GPTQ, Frantar et al. 2023; the largest inputs come first, and the scales of 4 bits are
      fitted to the inputs).
    calibration_rows, calibration_tokens: number of rows of calibration texts, and tokens in each.
  """

  layers: int = 0
  keep_layers: tuple = ()
  kv_heads: int = 0
  mlp_dim: int = 0
  unit_scores: UnitScores = 'activation'
  sparsity: float = 0.0
  pattern: Pattern = 'unstructured'
  weight_scores: WeightScores = 'wanda'
  bits: Bits = 'all'
  weight_bytes: int = 0
  group_size: int = 32
  rounding: Rounding = 'gptq'
  calibration_rows: int = 64
  calibration_tokens: int = 512

  def __post_init__(self) -> None:
    check(self, layers=(0, 10**6), kv_heads=(0, 10**6), mlp_dim=(0, 10**9), sparsity=(0, 0.99),
          weight_bytes=(0, 10**15), calibration_rows=(1, 10**6), calibration_tokens=(2, 10**6))
    if self.group_size not in GROUP_SIZES:
      raise UserError(f'CompressionConfig.group_size must be 32, 64 or 128, not {self.group_size}')
    if self.pattern == '2:4' and not self.sparsity:
      raise UserError("CompressionConfig.pattern = '2:4' has no effect without "
                      'CompressionConfig.sparsity = 0.5')
    if self.layers and self.keep_layers:
      raise UserError('CompressionConfig: give layers or keep_layers, not both')
    if any(type(i) is not int or i < 0 for i in self.keep_layers) or (
        sorted(set(self.keep_layers)) != list(self.keep_layers)):
      raise UserError('CompressionConfig.keep_layers must be numbers of layers in ascending order, '
                      f'not {self.keep_layers}')
    if (self.bits == 'mixed') != (self.weight_bytes > 0):
      raise UserError("CompressionConfig.bits = 'mixed' needs CompressionConfig.weight_bytes, the "
                      'largest size of the weight files; other bits do not have it')
    if self.sparsity and self.bits != 'all' and self.rounding == 'gptq':
      raise UserError('CompressionConfig: the rounding gptq would change weights that are zero; '
                      "set rounding to 'nearest' with a sparsity")
    if self.pattern == '2:4' and self.sparsity not in (0, 0.5):
      raise UserError('CompressionConfig: the pattern 2:4 has the sparsity 0.5, not '
                      f'{self.sparsity}')

  @property
  def is_neutral(self) -> bool:
    """Whether nothing is removed."""
    removed = self.layers, self.keep_layers, self.kv_heads, self.mlp_dim, self.sparsity
    return not any(removed) and self.bits == 'all'

  @property
  def without_bits(self) -> 'CompressionConfig':
    """The same, with all bits of what is left."""
    return dataclasses.replace(self, bits='all', weight_bytes=0)

  @property
  def bits_alone(self) -> 'CompressionConfig':
    """The same bits, of all weights."""
    return dataclasses.replace(self, layers=0, keep_layers=(), kv_heads=0, mlp_dim=0, sparsity=0.0)

  @property
  def needs_texts(self) -> bool:
    """Whether something is chosen by what the model does on calibration texts."""
    units = bool(self.kv_heads or self.mlp_dim) and self.unit_scores != 'magnitude'
    weights = self.sparsity > 0 and self.weight_scores != 'magnitude'
    bits = self.bits == 'mixed' or self.bits != 'all' and self.rounding == 'gptq'
    return bool(self.layers) or units or weights or bits

  def check_has_texts(self, given: bool) -> None:
    """Raises UserError if calibration texts are needed and not given."""
    if self.needs_texts and not given:
      raise UserError('these settings of CompressionConfig need calibration texts: give --corpus, '
                      'or the argument `texts` of compress; or choose by keep_layers, by '
                      'magnitude, or with the rounding nearest')
