"""Converts between tokenizers and the metadata of GGUF files."""

from collections.abc import Callable, Sequence
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # token types of llama.cpp
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
_NFC = {'type': 'NFC'}


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
  tokens, types = field('tokens'), field('token_type')
  while types and types[-1] == _UNUSED:  # rows of the embedding table without a token
    tokens, types = tokens[:len(types) - 1], types[:-1]
  def of_type(wanted: int, values: Sequence[Any] = tokens) -> list[Any]:
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
    raise UserError(f'{where} has a broken tokenizer: {" ".join(str(error).split())}') from error
  raise UserError(f'{where}: the tokenizer {model}/{pre} is not supported, or adds a space to '
                  'every text')


def tokenizer_fields(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
  """Returns the metadata that describe a byte-level tokenizer, without `tokenizer.ggml.`.

  llama.cpp begins texts with the start token, as we do.

  Args:
    tokenizer: the tokenizer.
    vocab_size: rows of the embedding table. Rows without a token get unused ones.

  Raises:
    UserError: llama.cpp has no such tokenizer, or the writer does not support it.
  """
  content = tokenizer.content()
  special = {token['id']: token['special'] for token in content['added_tokens']}
  tokens = {i: token for token, i in content['model']['vocab'].items()} | {
      token['id']: token['content'] for token in content['added_tokens']}
  types = [_type(i in tokens, special.get(i)) for i in range(vocab_size)]
  merges = [merge if isinstance(merge, str) else ' '.join(merge)
            for merge in content['model']['merges']]
  ids = {'bos_token_id': tokenizer.start_id, 'eos_token_id': tokenizer.eos_id}
  return {
      'model': 'gpt2', 'pre': _pre_tokenizer_name(content),
      'tokens': [tokens.get(i, f'[PAD{i}]') for i in range(vocab_size)], 'token_type': types,
      'merges': merges, **{name: i for name, i in ids.items() if i is not None},
      'add_bos_token': tokenizer.start_id is not None}


def _type(exists: bool, special: bool | None) -> int:
  """Returns the type of a token; `special` is None for one that was not added to the vocabulary."""
  if not exists:
    return _UNUSED
  return _NORMAL if special is None else _CONTROL if special else _USER_DEFINED


def _pre_tokenizer_name(content: dict[str, Any]) -> str:
  """Returns what llama.cpp calls the pre-tokenization in a tokenizer.json."""
  options = _pre_tokenizer_options(content)
  for name, known in _PRE_TOKENIZERS.items():
    if options == {'pattern': '', 'ignore_merges': False, 'nfc': False, **known}:
      return name
  raise UserError('the tokenizer cannot be written as GGUF: it splits texts in a way that has no '
                  'name in llama.cpp, or is not byte-level; leave out --format gguf')


def _pre_tokenizer_options(content: dict[str, Any]) -> dict[str, Any]:
  """Returns the arguments of `Tokenizer.byte_level_bpe` that a tokenizer.json stands for.

  It is empty if there are none.
  """
  pre = content.get('pre_tokenizer') or {}
  steps = {step['type']: step for step in pre.get('pretokenizers', [pre]) if step}
  split, digits = steps.get('Split', {}), steps.get('Digits', {})
  plain_split = {'pattern': split.get('pattern'), 'type': 'Split', 'behavior': 'Isolated',
                 'invert': False}
  byte_level, normalizer = steps.get('ByteLevel', {}), content.get('normalizer')
  if (content['model']['type'] != 'BPE' or steps.keys() - {'Split', 'Digits', 'ByteLevel'}
      or byte_level.get('add_prefix_space', True) or split not in ({}, plain_split)
      or byte_level.get('use_regex', True) == bool(split) or normalizer not in (None, _NFC)
      or not digits.get('individual_digits', True)):
    return {}
  return {'split_digits': bool(digits), 'pattern': split.get('pattern', {}).get('Regex', ''),
          'ignore_merges': content['model'].get('ignore_merges', False), 'nfc': bool(normalizer)}
