"""The tokenizer that the metadata of a GGUF file describe."""

from collections.abc import Callable
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

_NORMAL, _CONTROL, _WHOLE = 1, 3, 4  # gguf's types of tokens: plain, special, and never cut
_LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
           r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# How byte-level tokenizers cut a text before they merge, by the names that llama.cpp gives.
_CUTS = {
    'gpt-2': {'split_digits': False},
    'smollm': {'split_digits': True},
    'llama-bpe': {'split_digits': False, 'pattern': _LLAMA3, 'ignore_merges': True},
    'qwen2': {'split_digits': False, 'pattern': _LLAMA3.replace('{1,3}', ''), 'composed': True}}


def read_tokenizer(field: Callable[..., Any], where: str, vocab_size: int) -> Tokenizer:
  """Returns a tokenizer.

  Args:
    field: from the name of a field, without `tokenizer.ggml.`, and a default to its value.
    where: the file, for errors.
    vocab_size: rows of the model's embedding table.

  Raises:
    UserError: it is broken, or of an unknown kind.
  """
  model, pre = field('model'), field('pre', 'default')
  ids = {'bos_id': field('bos_token_id', -1), 'eos_id': field('eos_token_id', -1)}
  ids = {name: None if i == -1 else i for name, i in ids.items()} | {'vocab_size': vocab_size}
  tokens = field('tokens')
  def of(kind, values=tokens):
    return [value for value, its in zip(values, field('token_type'), strict=True) if its == kind]
  try:
    special, whole = of(_CONTROL), of(_WHOLE)
    if model == 'gpt2' and pre in _CUTS:
      merges = [tuple(merge.split(' ')) for merge in field('merges')]
      return Tokenizer.byte_level_bpe(
          tokens, merges, special, whole=whole, **_CUTS[pre], **ids)
    if model == 'llama' and field('add_space_prefix', True) is False:
      scores = of(_NORMAL, field('scores'))
      if scores != sorted(scores, reverse=True):
        raise UserError(f'{where}: the scores of its tokens do not fall with their ids, which is '
                        'not supported')
      return Tokenizer.sentencepiece_bpe(
          tokens, special, whole, tokens[field('unknown_token_id')], **ids)
  except UserError:
    raise
  except Exception as error:  # `tokenizers` raises the bare kind
    raise UserError(f'{where} has a broken tokenizer: {error}') from error
  raise UserError(f'{where} has a tokenizer of an unknown kind, {model}/{pre}, or one that begins '
                  'every text with a space')
