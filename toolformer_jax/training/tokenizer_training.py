"""Trains a byte-level BPE tokenizer on texts."""

import json
from collections.abc import Iterable

import tokenizers

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

END_OF_TEXT = '<|endoftext|>'
_FEWEST = 256 + 2  # all bytes, the end of a text, the start of a call


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, syntax: CallSyntax = DEFAULT_SYNTAX
                    ) -> Tokenizer:
  """Returns a byte-level BPE tokenizer with the pre-tokens of GPT-2; a digit is a token of its own.

  The start of a call is a single token, as the engine and the sampling of calls need it. The same
  texts always give the same tokenizer.

  Args:
    texts: what merges are learned from.
    vocab_size: number of tokens; fewer, if the texts have no more pairs that occur twice.
    syntax: how calls are spelled.

  Raises:
    UserError: there is no text, or `vocab_size` has no room for all bytes.
  """
  if vocab_size < _FEWEST:
    raise UserError(f'a byte-level tokenizer needs at least {_FEWEST} tokens, not {vocab_size}')
  pre = tokenizers.pre_tokenizers
  hf = tokenizers.Tokenizer(tokenizers.models.BPE())
  hf.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True),
                                   pre.ByteLevel(add_prefix_space=False)])
  hf.train_from_iterator(_not_blank(texts), tokenizers.trainers.BpeTrainer(
      vocab_size=vocab_size - 2, min_frequency=2, show_progress=False,
      initial_alphabet=sorted(pre.ByteLevel.alphabet())))
  model = json.loads(hf.to_str())['model']
  tokens = sorted(model['vocab'], key=model['vocab'].__getitem__)
  merges = [(first, second) for first, second in model['merges']]
  merges = [*_add_start(tokens, syntax.start), *merges]
  tokens.append(END_OF_TEXT)
  return Tokenizer.byte_level_bpe(tokens, merges, [END_OF_TEXT], split_digits=True, bos_id=None,
                                  eos_id=len(tokens) - 1)


def _add_start(tokens: list[str], start: str) -> list[tuple[str, str]]:
  """Adds the start of a call to `tokens` if it is not among them; returns the merges that make it.
  """
  [(spelled, _)] = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False, use_regex=False).pre_tokenize_str(start)
  merges = []
  for end in range(2, len(spelled) + 1):
    if spelled[:end] not in tokens:
      tokens.append(spelled[:end])
      merges.append((spelled[:end - 1], spelled[end - 1]))
  return merges


def _not_blank(texts: Iterable[str]) -> list[str]:
  """Returns the texts that have something to learn."""
  found = [text for text in texts if text.strip()]
  if not found:
    raise UserError('there is no text to train a tokenizer on')
  return found
