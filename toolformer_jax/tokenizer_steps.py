"""Checks that a tokenizer of Hugging Face keeps every character of a text.

The ids of a text must spell it: calls are inserted between them, and removed again. NFC is let
through, since tokenizers such as that of Qwen have it and most texts are in it;
`Tokenizer.spells` tells the others.
"""

import json
from typing import Any

from tokenizers import Tokenizer as HfTokenizer

from toolformer_jax.errors import UserError

_NORMALIZERS = {'NFC', 'ByteLevel'}
_SENTENCEPIECE = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '▁'}
# A space that two of them may add is found by encoding a text.
_PRE_TOKENIZERS = {'ByteLevel', 'Digits', 'FixedLength', 'Metaspace', 'UnicodeScripts'}
_SPLITTING = {'Punctuation', 'Split'}
_BYTES = {f'<0x{byte:02X}>' for byte in range(256)}


def check_keeps_text(hf: HfTokenizer, where: str) -> None:
  """Checks the normalizer, the pre-tokenizer, the model, the decoder and the added tokens.

  Args:
    hf: the tokenizer.
    where: its file, for errors.

  Raises:
    UserError: a part of it would lose or change characters.
  """
  def refuse(what: str) -> UserError:
    return UserError(f'{where}: {what}, so that ids would not spell their text; such a tokenizer '
                     'is not supported')
  for step in steps(hf.normalizer):
    if step['type'] not in _NORMALIZERS and step != _SENTENCEPIECE:
      raise refuse(f'the normalizer {step["type"]} changes texts')
  for step in steps(hf.pre_tokenizer):
    if not (step['type'] in _PRE_TOKENIZERS
            or step['type'] in _SPLITTING and step['behavior'] != 'Removed'):
      raise refuse(f'the pre-tokenizer {step["type"]} removes characters')
  for i, token in sorted(hf.get_added_tokens_decoder().items()):
    if not token.special and (token.lstrip or token.rstrip):  # special ones are never matched
      raise refuse(f'the added token {token.content!r} ({i}) removes spaces beside it')
  if any(getattr(hf.model, name, None)
         for name in ('continuing_subword_prefix', 'end_of_word_suffix')):
    raise refuse('the tokens of the model have a prefix or suffix that no text has')
  if not (_has_bytes(hf) and {step['type'] for step in steps(hf.decoder)}
          & {'ByteLevel', 'ByteFallback'}):
    raise UserError(f'{where} has no tokens of bytes; only byte-level tokenizers and those with '
                    'byte fallback are supported')


def steps(part: Any) -> list[dict[str, Any]]:
  """Returns the steps of a normalizer, a pre-tokenizer or a decoder, as tokenizer.json has them."""
  if part is None:
    return []
  def flat(step: dict[str, Any]) -> list[dict[str, Any]]:
    for name in ('normalizers', 'pretokenizers', 'decoders'):
      if name in step:
        return [inner for one in step[name] for inner in flat(one)]
    return [step]
  return flat(json.loads(part.__getstate__()))


def _has_bytes(hf: HfTokenizer) -> bool:
  """Returns whether there is a token for each byte, whatever the vocabulary lacks."""
  if type(hf.model).__name__ not in ('BPE', 'Unigram'):
    return False
  if any(step['type'] == 'ByteLevel' for step in steps(hf.normalizer) + steps(hf.pre_tokenizer)):
    return True
  # Unigram models tell it nowhere else.
  falls_back = getattr(hf.model, 'byte_fallback', None)
  if falls_back is None:
    falls_back = json.loads(hf.model.__getstate__()).get('byte_fallback')
  return bool(falls_back) and hf.get_vocab().keys() >= _BYTES
