"""Builds the tokenizer that the metadata of a GGUF file describe."""

from collections.abc import Callable, Sequence
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # token types of llama.cpp
_LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
           r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# Pre-tokenization of byte-level tokenizers, by the names of llama.cpp, several of which mean the
# same.
_GPT2: dict[str, Any] = {'split_digits': False}
_SMOLLM: dict[str, Any] = {'split_digits': True}
_LLAMA_BPE: dict[str, Any] = {'split_digits': False, 'pattern': _LLAMA3, 'ignore_merges': True}
_SMAUG: dict[str, Any] = {'split_digits': False, 'pattern': _LLAMA3}
_QWEN2: dict[str, Any] = {
    'split_digits': False, 'pattern': _LLAMA3.replace('{1,3}', ''), 'nfc': True}
_PRE_TOKENIZERS = {
    'gpt-2': _GPT2, 'phi-2': _GPT2, 'jina-es': _GPT2, 'jina-de': _GPT2, 'jina-v2-es': _GPT2,
    'jina-v2-de': _GPT2, 'gigachat': _GPT2, 'mellum': _GPT2,
    'smollm': _SMOLLM, 'codeshell': _SMOLLM, 'exaone': _SMOLLM, 'starcoder': _SMOLLM,
    'refact': _SMOLLM, 'minerva-7b': _SMOLLM,
    'llama-bpe': _LLAMA_BPE, 'llama3': _LLAMA_BPE, 'llama-v3': _LLAMA_BPE, 'falcon3': _LLAMA_BPE,
    'pixtral': _LLAMA_BPE, 'smaug-bpe': _SMAUG, 'dbrx': _SMAUG,
    'qwen2': _QWEN2, 'deepseek-r1-qwen': _QWEN2, 'megrez': _QWEN2}


def read_tokenizer(field: Callable[..., Any], where: str, vocab_size: int) -> Tokenizer:
  """Returns a tokenizer.

  Args:
    field: returns the value of a field; its arguments are the name without `tokenizer.ggml.`, and a
      default.
    where: the file, for errors.
    vocab_size: rows of the embedding table.

  Raises:
    UserError: it is broken or not supported.
  """
  model, pre = field('model'), field('pre', 'default')
  ids = {'bos_id': field('bos_token_id', -1), 'eos_id': field('eos_token_id', -1)}
  ids = {name: None if i == -1 else i for name, i in ids.items()} | {'vocab_size': vocab_size}
  tokens = field('tokens')
  def of_type(wanted: int, values: Sequence[Any] = tokens) -> list[Any]:
    types = field('token_type')
    return [value for value, found in zip(values, types, strict=True) if found == wanted]
  try:
    special, added = of_type(_CONTROL), of_type(_USER_DEFINED)
    if model == 'gpt2' and pre in _PRE_TOKENIZERS:
      merges = [tuple(merge.split(' ')) for merge in field('merges')]
      return Tokenizer.byte_level_bpe(
          tokens, merges, special, added=added, **_PRE_TOKENIZERS[pre], **ids)
    if model == 'llama' and field('add_space_prefix', True) is False:
      scores = of_type(_NORMAL, field('scores'))
      if scores != sorted(scores, reverse=True):
        raise UserError(f'{where}: a tokenizer whose scores do not decrease with the ids is not '
                        'supported')
      return Tokenizer.sentencepiece_bpe(
          tokens, special, added, tokens[field('unknown_token_id')], **ids)
  except UserError:
    raise
  except Exception as error:  # `tokenizers` raises plain exceptions
    raise UserError(f'{where} has a broken tokenizer: {error}') from error
  raise UserError(f'{where}: the tokenizer {model}/{pre} is not supported, or adds a space to '
                  'every text')
