"""Trains a byte-level BPE tokenizer on texts."""

import json
from collections.abc import Iterable

import tokenizers

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

END_OF_TEXT = '<|endoftext|>'
_BYTES = 256


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, syntax: CallSyntax = DEFAULT_SYNTAX
                    ) -> Tokenizer:
  """Returns a byte-level BPE tokenizer with the pre-tokens of GPT-2; a digit is a token of its own.

  The start of a call is a single token, as the engine and the sampling of calls need it. The same
  texts always give the same tokenizer.

  Args:
    texts: what merges are learned from.
    vocab_size: largest number of tokens; there are fewer if the texts have no more pairs of tokens
      that occur twice.
    syntax: how calls are spelled.

  Raises:
    UserError: there is no text, `vocab_size` has no room for all bytes, or the start of a call
      cannot be a single token.
  """
  pre = tokenizers.pre_tokenizers
  [(start, _)] = pre.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(
      syntax.start)
  own = len(start)  # tokens: a merge for each of its bytes but the first, and the end of a text
  if vocab_size < _BYTES + own:
    raise UserError(f'a byte-level tokenizer needs at least {_BYTES + own} tokens, not '
                    f'{vocab_size}')
  hf = tokenizers.Tokenizer(tokenizers.models.BPE())
  hf.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True),
                                   pre.ByteLevel(add_prefix_space=False)])
  hf.train_from_iterator(_not_blank(texts), tokenizers.trainers.BpeTrainer(
      vocab_size=vocab_size - own, min_frequency=2, show_progress=False,
      initial_alphabet=sorted(pre.ByteLevel.alphabet())))
  model = json.loads(hf.to_str())['model']
  tokens = sorted(model['vocab'], key=model['vocab'].__getitem__)
  merges = [(first, second) for first, second in model['merges']]
  merges = [*_add_start(tokens, start), *merges]
  tokens.append(END_OF_TEXT)
  made = Tokenizer.byte_level_bpe(tokens, merges, [END_OF_TEXT], split_digits=True, bos_id=None,
                                  eos_id=len(tokens) - 1)
  made.single_id(syntax.start)  # not if it would be divided before merges, as `<API>` is
  return made


def _add_start(tokens: list[str], start: str) -> list[tuple[str, str]]:
  """Adds the start of a call to `tokens` if it is not among them; returns the merges that make it.

  Args:
    tokens: the vocabulary.
    start: the start of a call in the characters of byte-level tokens.
  """
  merges = []
  for end in range(2, len(start) + 1):
    if start[:end] not in tokens:
      tokens.append(start[:end])
      merges.append((start[:end - 1], start[end - 1]))
  return merges


def _not_blank(texts: Iterable[str]) -> list[str]:
  """Returns the texts that have something to learn."""
  found = [text for text in texts if text.strip()]
  if not found:
    raise UserError('there is no text to train a tokenizer on')
  return found
