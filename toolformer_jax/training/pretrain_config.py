"""Settings of a decoder that is trained from nothing."""

from dataclasses import dataclass

from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.presets import preset
from toolformer_jax.runtime.validation import check

_SIZES = ('layers', 'embed_dim', 'heads', 'kv_heads', 'head_dim', 'mlp_dim', 'max_positions')


@dataclass(frozen=True)
class PretrainConfig:
  """The decoder that is trained from nothing, and its tokenizer.

  Attributes:
    preset: a decoder by name, such as 'smollm2_135m' or 'gpt2_124m': it has the options of this
      family, and the sizes for which there is a 0 below.
    layers, embed_dim, heads, kv_heads, head_dim, mlp_dim, max_positions: sizes, as in
      `DecoderConfig`.
    vocab_size: tokens of the tokenizer that is trained on the corpus, where none is given.
    seed: of the initial weights.
  """

  preset: str = 'smollm2_135m'
  layers: int = 0
  embed_dim: int = 0
  heads: int = 0
  kv_heads: int = 0
  head_dim: int = 0
  mlp_dim: int = 0
  max_positions: int = 0
  vocab_size: int = 8192
  seed: int = 0

  def __post_init__(self) -> None:
    check(self, vocab_size=(258, 2**24), seed=(0, 2**32 - 1),
          **dict.fromkeys(_SIZES, (0, 10**6)))
    self.decoder(self.vocab_size)

  def decoder(self, vocab_size: int) -> DecoderConfig:
    """Returns the decoder for a tokenizer with `vocab_size` tokens.

    Raises:
      UserError: there is no such preset, or the sizes do not fit each other.
    """
    base = preset(self.preset)
    sizes: dict[str, int] = {name: getattr(self, name) or getattr(base, name) for name in _SIZES}
    whole = base.rotary_dim == base.head_dim
    rotary_dim = sizes['head_dim'] if whole else min(base.rotary_dim, sizes['head_dim'])
    try:
      return base.replace(**sizes, vocab_size=vocab_size, rotary_dim=rotary_dim)
    except ValueError as error:
      raise UserError(f'PretrainConfig: {error}') from error
