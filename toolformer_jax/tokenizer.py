"""Text to ids and back, without special tokens, and what a token spells.

Ids of a text never hold special tokens; where a stage wants one (the start token before a scored
sequence), it adds it visibly.
"""

import functools
import json
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from tokenizers import AddedToken
from tokenizers import Tokenizer as HfTokenizer

from toolformer_jax.errors import UserError

_END_OF_TEXT = '<|endoftext|>'


def _byte_of_character() -> dict[str, int]:
  """Returns the byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  hidden = [byte for byte in range(256) if byte not in printable]
  return {chr(byte): byte for byte in printable} | {
      chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_of_character()
_SPACE = '▁'  # what SentencePiece writes for it
_BYTE = re.compile(r'<0x([0-9A-F]{2})>')


class Tokenizer:
  """A tokenizer whose tokens spell the text: byte-level, or SentencePiece's with bytes to fall
  back on.

  Attributes:
    start_id: id that begins every sequence, so that a text's first token has a probability too:
      the BOS token where the model has one, else end-of-text, else None.
    end_ids: ids at which generation ends.
    vocab_size: number of ids.
  """

  def __init__(self, hf: HfTokenizer, *, bos_id: int | None, eos_id: int | None,
               vocab_size: int = 0, end_ids: Iterable[int] = ()):
    """Wraps a tokenizer of the `tokenizers` library; ids that are None are unknown.

    A model may have a `vocab_size` above the number of tokens; the ids between spell nothing. It
    may have `end_ids` besides its `eos_id`, that of the end of a turn for instance.
    """
    self._hf = hf
    self.bos_id, self.eos_id = bos_id, eos_id
    self.vocab_size = max(hf.get_vocab_size(with_added_tokens=True), vocab_size)
    end_of_text = hf.token_to_id(_END_OF_TEXT)
    self.start_id = end_of_text if bos_id is None else bos_id
    self.end_ids = frozenset({eos_id, end_of_text, *end_ids} - {None})

  @classmethod
  def byte_level_bpe(
      cls, tokens: list[str], merges: list[tuple[str, str]], special: list[str], *,
      split_digits: bool, bos_id: int | None, eos_id: int | None, vocab_size: int = 0,
      pattern: str = '', whole: Sequence[str] = (), ignore_merges: bool = False,
      composed: bool = False,
  ) -> 'Tokenizer':
    """Builds a GPT-2 style tokenizer.

    With `split_digits` every digit is a token of its own. Merges do not cross the pieces that
    `pattern`, a regular expression, cuts a text into; by default GPT-2's. Tokens that are `whole`
    are found in a text before anything else is. With `ignore_merges` a piece that is a token is
    one, whatever merges say (Llama 3). A text is `composed` (Unicode's NFC) first for Qwen.
    """
    vocab = {token: i for i, token in enumerate(tokens)}
    hf = HfTokenizer(tokenizers.models.BPE(vocab, merges, ignore_merges=ignore_merges))
    if composed:
      hf.normalizer = tokenizers.normalizers.NFC()
    pre = tokenizers.pre_tokenizers
    pieces = [pre.Digits(individual_digits=True)] if split_digits else []
    if pattern:
      pieces.append(pre.Split(tokenizers.Regex(pattern), 'isolated'))
    hf.pre_tokenizer = pre.Sequence(
        [*pieces, pre.ByteLevel(add_prefix_space=False, use_regex=not pattern)])
    hf.decoder = tokenizers.decoders.ByteLevel()
    _add_tokens(hf, special, whole)
    return cls(hf, bos_id=bos_id, eos_id=eos_id, vocab_size=vocab_size)

  @classmethod
  def sentencepiece_bpe(
      cls, tokens: list[str], special: list[str], whole: list[str], unknown: str, *,
      bos_id: int | None, eos_id: int | None, vocab_size: int = 0,
  ) -> 'Tokenizer':
    """Builds a tokenizer like Gemma's: merges in the order of the tokens that they make.

    A text is not begun with a space. What no token spells is spelled by tokens of single bytes.
    """
    # Runs of spaces are merged like words: where tokens are looked for, spaces are replaced.
    tokens = [token if token.strip(' ') else _SPACE * len(token) for token in tokens]
    whole = [token for token in whole if token.strip(' ')]
    vocab = {token: i for i, token in enumerate(tokens)}
    # Of several ways to make a token, the one with the longest left half comes first.
    merges = [(token[:cut], token[cut:]) for token in tokens for cut in range(len(token) - 1, 0, -1)
              if token[:cut] in vocab and token[cut:] in vocab]
    hf = HfTokenizer(tokenizers.models.BPE(
        vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    hf.normalizer = tokenizers.normalizers.Replace(' ', _SPACE)
    hf.decoder = tokenizers.decoders.Sequence([
        tokenizers.decoders.Replace(_SPACE, ' '), tokenizers.decoders.ByteFallback(),
        tokenizers.decoders.Fuse()])
    _add_tokens(hf, special, whole)
    return cls(hf, bos_id=bos_id, eos_id=eos_id, vocab_size=vocab_size)

  @classmethod
  def load(cls, directory: pathlib.Path) -> 'Tokenizer':
    """Reads what `save` wrote.

    Raises:
      UserError: a file is missing or broken.
    """
    try:
      ids = json.loads((directory / 'tokenizer_ids.json').read_text('utf-8'))
      text = (directory / 'tokenizer.json').read_text('utf-8')
      return cls(HfTokenizer.from_str(text), bos_id=ids['bos_id'], eos_id=ids['eos_id'],
                 vocab_size=ids.get('vocab_size', 0), end_ids=ids.get('end_ids', ()))
    except (OSError, ValueError, KeyError) as error:
      raise UserError(f'no usable tokenizer in {directory}: {error}') from error

  @classmethod
  def from_file(cls, file: pathlib.Path, *, bos_id: int | None, eos_id: int | None,
                vocab_size: int = 0, end_ids: Iterable[int] = ()) -> 'Tokenizer':
    """Reads a tokenizer.json of Hugging Face; the ids are those of `__init__`.

    Raises:
      UserError: it is broken, or of a kind whose tokens do not spell the text.
    """
    try:
      hf = HfTokenizer.from_file(str(file))
    except Exception as error:  # the library raises the bare kind
      raise UserError(f'{file} is no tokenizer: {error}') from error
    if not _decoders(hf) & {'ByteLevel', 'ByteFallback'}:
      raise UserError(f'{file} has no tokens of bytes, and only tokenizers that do are supported')
    made = cls(hf, bos_id=bos_id, eos_id=eos_id, vocab_size=vocab_size, end_ids=end_ids)
    if not made.spells('a b'):
      raise UserError(f'{file} begins every text with a space or changes it otherwise, so that a '
                      'call in a text could not be taken out again; it is not supported')
    return made

  def export(self, directory: pathlib.Path) -> None:
    """Writes what transformers needs: tokenizer.json and tokenizer_config.json."""
    (directory / 'tokenizer.json').write_text(self._hf.to_str(), 'utf-8')
    names = {f'{kind}_token': token for kind, i in (('bos', self.bos_id), ('eos', self.eos_id))
             if i is not None and (token := self._hf.id_to_token(i)) is not None}
    fields = {'tokenizer_class': 'PreTrainedTokenizerFast', **names}
    (directory / 'tokenizer_config.json').write_text(json.dumps(fields, indent=2) + '\n', 'utf-8')

  def save(self, directory: pathlib.Path) -> None:
    """Writes tokenizer.json (Hugging Face's format) and the ids of its special tokens."""
    (directory / 'tokenizer.json').write_text(self._hf.to_str(), 'utf-8')
    ids = {'bos_id': self.bos_id, 'eos_id': self.eos_id, 'vocab_size': self.vocab_size,
           'end_ids': sorted(self.end_ids)}
    (directory / 'tokenizer_ids.json').write_text(json.dumps(ids), 'utf-8')

  def encode(self, text: str) -> list[int]:
    """Returns the ids of `text`; what looks like a special token in it is read as plain text."""
    return self._plain.encode(text, add_special_tokens=False).ids

  @functools.cached_property
  def _plain(self) -> HfTokenizer:
    """The tokenizer for text that nobody vouches for: `<|im_end|>` in a corpus is just letters."""
    plain = HfTokenizer.from_str(self._hf.to_str())
    plain.encode_special_tokens = True
    return plain

  @property
  def highest_id(self) -> int:
    """The highest id that a text, its start or its end can have."""
    special = {i for i, token in self._hf.get_added_tokens_decoder().items() if token.special}
    ids = set(self._hf.get_vocab(with_added_tokens=True).values()) - special
    return max(ids | self.end_ids | {self.start_id or 0})

  def single_id(self, text: str) -> int:
    """Returns the one id that `text` is.

    Raises:
      UserError: it is several.
    """
    ids = self.encode(text)
    if len(ids) != 1:
      raise UserError(f'{text!r} must be one token of the model to start a call, and is {len(ids)}')
    return ids[0]

  def decode(self, ids: list[int] | np.ndarray) -> str:
    """Returns the text of `ids`; bytes that are not UTF-8 become replacement characters."""
    return b''.join(self.token_bytes[i] for i in ids).decode('utf-8', errors='replace')

  def characters_before(self, text: str, position: int) -> int:
    """Returns how many whole characters of `text` stand before its token at `position`."""
    spelled = b''.join(self.token_bytes[i] for i in self.encode(text)[:position])
    return len(spelled.decode('utf-8', errors='ignore'))

  def spells(self, text: str) -> bool:
    """Tells whether the tokens of `text` spell it: a vocabulary may lack a control character."""
    return self.decode(self.encode(text)) == text

  @functools.cached_property
  def token_bytes(self) -> list[bytes]:
    """The bytes that each id spells; a text's tokens spell its UTF-8 encoding (see `spells`)."""
    spelling = _byte_level if 'ByteLevel' in _decoders(self._hf) else _sentencepiece
    return [spelling(self._hf.id_to_token(i) or '') for i in range(self.vocab_size)]

  @functools.cached_property
  def starts_character(self) -> np.ndarray:
    """Whether each id begins with a whole character: a call must not split one. [V], bool."""
    return np.array([not token or token[0] & 0xC0 != 0x80 for token in self.token_bytes])


def _byte_level(token: str) -> bytes:
  if all(character in _BYTES for character in token):
    return bytes(_BYTES[character] for character in token)
  return token.encode('utf-8')


def _sentencepiece(token: str) -> bytes:
  if byte := _BYTE.fullmatch(token):
    return bytes.fromhex(byte[1])
  return token.replace(_SPACE, ' ').encode('utf-8')


def _add_tokens(hf: HfTokenizer, special: Sequence[str], whole: Sequence[str]) -> None:
  hf.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
  hf.add_tokens([AddedToken(token, special=False, normalized=False) for token in whole])


def _decoders(hf: HfTokenizer) -> set[str]:
  """Returns the kinds of the steps from tokens to text."""
  decoder = json.loads(hf.decoder.__getstate__()) if hf.decoder else {}
  return {step['type'] for step in decoder.get('decoders', [decoder]) if 'type' in step}
