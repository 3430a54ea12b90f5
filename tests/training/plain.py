"""Training examples without calls."""

from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.packing import Example


def plain_example(text: str, tokenizer: Tokenizer) -> Example:
  """Returns a text without calls, all of whose tokens count in the loss."""
  ids = tokenizer.encode(text)
  return Example(ids, [1.0] * len(ids))
