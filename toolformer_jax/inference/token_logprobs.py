"""Log-probabilities of a text's tokens, and which tokens belong to a piece of it. No arrays."""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from toolformer_jax.tokenizer import Tokenizer


class TokenLogprobs(NamedTuple):
  """A token, its log-probability (None for the first of a text), and the likeliest tokens in its
  place with theirs, best first."""

  token: int
  logprob: float | None
  top: list[tuple[int, float]]


class TextOffsets:
  """Counts how many characters of a text precede each of its tokens, which come one by one.

  Attributes:
    at: the characters before the next token.
  """

  def __init__(self, tokenizer: Tokenizer):
    """Begins at the beginning of a text."""
    self._token_bytes = tokenizer.token_bytes
    self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
    self.at = 0

  def add(self, token: int) -> int:
    """Adds a token; returns the characters before it."""
    before = self.at
    self.at += len(self._decoder.decode(self._token_bytes[token]))
    return before


class LogprobBuffer:
  """Keeps the log-probabilities of a text's tokens until its pieces are given out."""

  def __init__(self, tokenizer: Tokenizer):
    """Begins at the beginning of a text."""
    self._by_index: dict[int, TokenLogprobs] = {}
    self._offsets = TextOffsets(tokenizer)
    self._num_taken = self._end = 0

  def put(self, first: int, new: Sequence[TokenLogprobs]) -> None:
    """Keeps those of tokens from number `first` on, in place of what was there."""
    self._by_index.update(enumerate(new, first))

  def take(self, tokens: Sequence[int], size: int) -> list[TokenLogprobs]:
    """Returns those of the tokens that begin in the next `size` characters of the text.

    `tokens` are those of the text so far; the ones that were taken must not have changed.
    """
    self._end += size
    taken = []
    while self._num_taken < len(tokens) and self._offsets.at < self._end:
      self._offsets.add(tokens[self._num_taken])
      taken.append(self._by_index.pop(self._num_taken))
      self._num_taken += 1
    return taken
