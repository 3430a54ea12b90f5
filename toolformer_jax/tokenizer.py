"""Converts text to token ids and back, without special tokens.

Encoded texts never contain special tokens. Code that needs one, such as the start token before a
scored sequence, adds it explicitly.
"""

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tokenizers
from etils import epath
from tokenizers import AddedToken
from tokenizers import Tokenizer as HfTokenizer

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import write_text
from toolformer_jax.runtime.run_dir import write_json
from toolformer_jax.runtime.standard_output import silence_native_stderr
from toolformer_jax.tokenizer_steps import check_keeps_text, steps

_END_OF_TEXT = '<|endoftext|>'


def _byte_of_character() -> dict[str, int]:
  """Returns the byte for each character of a byte-level vocabulary (the table of GPT-2)."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  hidden = [byte for byte in range(256) if byte not in printable]
  return {chr(byte): byte for byte in printable} | {
      chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_of_character()
_SPACE = '▁'  # a space in SentencePiece
_MAX_ID = 2**24
_BYTE = re.compile(r'<0x([0-9A-F]{2})>')


class Tokenizer:
  """A lossless tokenizer: byte-level BPE, or SentencePiece BPE with byte fallback.

  Attributes:
    start_id: id that begins every sequence, so that the first token of a text has a probability:
      the BOS token if the model has one, else the end-of-text token, else None.
    end_ids: ids at which generation ends.
    vocab_size: number of ids.
    chat_template: Jinja template of a conversation, as transformers has it; '' for none.
  """

  def __init__(self, hf: HfTokenizer, *, bos_id: int | None, eos_id: int | None,
               vocab_size: int = 0, end_ids: Iterable[int] = ()):
    """Wraps a tokenizer of the `tokenizers` library.

    Args:
      hf: the tokenizer. Truncation, padding and BPE dropout are switched off.
      bos_id: id of the BOS token, or None.
      eos_id: id of the EOS token, or None.
      vocab_size: rows of the embedding table, if there are more than tokens. The additional ids
        decode to nothing.
      end_ids: further ids that end generation, such as the end of a turn.
    """
    hf.no_truncation()
    hf.no_padding()
    if getattr(hf.model, 'dropout', None):
      hf.model.dropout = None
    self._hf = hf
    self.bos_id, self.eos_id = bos_id, eos_id
    self.vocab_size = max(hf.get_vocab_size(with_added_tokens=True), vocab_size)
    end_of_text = hf.token_to_id(_END_OF_TEXT)
    self.start_id = end_of_text if bos_id is None else bos_id
    self.end_ids = frozenset(i for i in (eos_id, end_of_text, *end_ids) if i is not None)
    self.chat_template = ''

  @classmethod
  def byte_level_bpe(
      cls, tokens: list[str], merges: list[tuple[str, str]], special: list[str], *,
      split_digits: bool, bos_id: int | None, eos_id: int | None, vocab_size: int = 0,
      pattern: str = '', added: Sequence[str] = (), ignore_merges: bool = False, nfc: bool = False,
  ) -> 'Tokenizer':
    """Builds a byte-level BPE tokenizer, like that of GPT-2.

    Args:
      tokens: the vocabulary, in the order of the ids.
      merges: pairs of tokens, in the order in which they are merged.
      special: special tokens.
      split_digits: every digit is a token of its own.
      bos_id, eos_id, vocab_size: as in `__init__`.
      pattern: regular expression of the pre-tokens, which merges do not cross; by default GPT-2's.
      added: tokens that are matched in the text before pre-tokenization.
      ignore_merges: a pre-token that is in the vocabulary is not split, whatever the merges (Llama
        3).
      nfc: texts are normalized to Unicode NFC (Qwen).
    """
    vocab = {token: i for i, token in enumerate(tokens)}
    hf = HfTokenizer(tokenizers.models.BPE(vocab, merges, ignore_merges=ignore_merges))
    if nfc:
      hf.normalizer = tokenizers.normalizers.NFC()
    pre = tokenizers.pre_tokenizers
    digits = [pre.Digits(individual_digits=True)] if split_digits else []
    split = [pre.Split(tokenizers.Regex(pattern), 'isolated')] if pattern else []
    hf.pre_tokenizer = pre.Sequence(
        [*digits, *split, pre.ByteLevel(add_prefix_space=False, use_regex=not pattern)])
    hf.decoder = tokenizers.decoders.ByteLevel()
    _add_tokens(hf, special, added)
    return cls(hf, bos_id=bos_id, eos_id=eos_id, vocab_size=vocab_size)

  @classmethod
  def sentencepiece_bpe(
      cls, tokens: list[str], special: list[str], added: list[str], unknown: str, *,
      bos_id: int | None, eos_id: int | None, vocab_size: int = 0,
  ) -> 'Tokenizer':
    """Builds a tokenizer like that of Gemma.

    Merges are ordered by the ids of the resulting tokens. No space is added before a text. Unknown
    characters are encoded as tokens of single bytes.
    """
    # Spaces are replaced before tokens are matched, so that runs of spaces are merged like words.
    tokens = [token if token.strip(' ') else _SPACE * len(token) for token in tokens]
    added = [token for token in added if token.strip(' ')]
    vocab = {token: i for i, token in enumerate(tokens)}
    # If a token can be merged in several ways, the one with the longest left half comes first.
    merges = [(token[:cut], token[cut:]) for token in tokens for cut in range(len(token) - 1, 0, -1)
              if token[:cut] in vocab and token[cut:] in vocab]
    hf = HfTokenizer(tokenizers.models.BPE(
        vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    hf.normalizer = tokenizers.normalizers.Replace(' ', _SPACE)
    hf.decoder = tokenizers.decoders.Sequence([
        tokenizers.decoders.Replace(_SPACE, ' '), tokenizers.decoders.ByteFallback(),
        tokenizers.decoders.Fuse()])
    _add_tokens(hf, special, added)
    return cls(hf, bos_id=bos_id, eos_id=eos_id, vocab_size=vocab_size)

  @classmethod
  def load(cls, directory: epath.Path) -> 'Tokenizer':
    """Reads what `save` wrote.

    Raises:
      UserError: a file is missing or broken.
    """
    with _as_user_errors(directory):
      ids = json.loads((directory / 'tokenizer_ids.json').read_bytes())
      hf = HfTokenizer.from_str((directory / 'tokenizer.json').read_bytes().decode())
      _check_ids(hf, directory)
      check_keeps_text(hf, str(directory / 'tokenizer.json'))
      made = cls(hf, bos_id=ids['bos_id'], eos_id=ids['eos_id'],
                 vocab_size=ids.get('vocab_size', 0), end_ids=ids.get('end_ids', ()))
      made.chat_template = ids.get('chat_template', '')
      return made

  @classmethod
  def from_file(cls, file: epath.Path, *, bos_id: int | None, eos_id: int | None,
                vocab_size: int = 0, end_ids: Iterable[int] = ()) -> 'Tokenizer':
    """Reads a tokenizer.json of Hugging Face. The other arguments are those of `__init__`.

    Raises:
      UserError: it is broken, or not lossless.
    """
    with _as_user_errors(file):
      hf = HfTokenizer.from_file(str(file))
      _check_ids(hf, file)
      check_keeps_text(hf, str(file))
      made = cls(hf, bos_id=bos_id, eos_id=eos_id, vocab_size=vocab_size, end_ids=end_ids)
      lossless = made.spells('a b')
    if not lossless:
      raise UserError(f'{file} adds a space to every text or changes it otherwise, so that calls '
                      'could not be removed from a text; it is not supported')
    return made

  def export(self, directory: epath.Path, max_positions: int) -> None:
    """Writes the files of transformers, whose tokenizer begins every text with the start token.

    They are tokenizer.json, tokenizer_config.json and special_tokens_map.json.
    """
    hf = HfTokenizer.from_str(self._hf.to_str())
    hf.post_processor = self._adds_start_token()
    write_text(directory / 'tokenizer.json', hf.to_str())
    tokens = {'bos_token': self.start_id, 'eos_token': self.eos_id, 'pad_token': self.eos_id}
    names = {name: token for name, i in tokens.items() if (token := self.token_of(i))}
    fields = {'tokenizer_class': 'PreTrainedTokenizerFast', 'model_max_length': max_positions,
              'clean_up_tokenization_spaces': False, **names}
    if self.chat_template:
      fields['chat_template'] = self.chat_template
    for name, content in (('tokenizer_config', fields), ('special_tokens_map', names)):
      write_json(directory / f'{name}.json', content)

  def _adds_start_token(self) -> tokenizers.processors.PostProcessor:
    """Returns the last step of transformers' encoding, which adds the start token, if any."""
    start = self.token_of(self.start_id)
    if start is None:
      return tokenizers.processors.Sequence([])
    return tokenizers.processors.TemplateProcessing(
        single=[start, '$A'], pair=[start, '$A', '$B'], special_tokens=[(start, self.start_id)])

  def token_of(self, i: int | None) -> str | None:
    """Returns the token with an id as the vocabulary spells it; None if there is none."""
    return None if i is None else self._hf.id_to_token(i)

  def content(self) -> dict[str, Any]:
    """Returns the content of tokenizer.json, as the `tokenizers` library writes it."""
    return json.loads(self._hf.to_str())

  def save(self, directory: epath.Path) -> None:
    """Writes tokenizer.json (the format of Hugging Face) and tokenizer_ids.json."""
    write_text(directory / 'tokenizer.json', self._hf.to_str())
    ids = {'bos_id': self.bos_id, 'eos_id': self.eos_id, 'vocab_size': self.vocab_size,
           'end_ids': sorted(self.end_ids), 'chat_template': self.chat_template}
    write_json(directory / 'tokenizer_ids.json', ids)

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash of all that the ids of texts depend on, in hexadecimal."""
    ids = [self.bos_id, self.eos_id, self.vocab_size, sorted(self.end_ids)]
    return hashlib.sha256((self._hf.to_str() + json.dumps(ids)).encode()).hexdigest()[:12]

  def encode(self, text: str) -> list[int]:
    """Returns the ids of `text`. Special tokens in the text are encoded as ordinary characters.

    Raises:
      UserError: `text` is not a string, or has half a surrogate pair, which is not a character.
    """
    try:
      return self._plain.encode(text, add_special_tokens=False).ids
    except TypeError as error:
      raise UserError(f'not a text of Unicode characters: {text!r:.80}') from error

  @functools.cached_property
  def _plain(self) -> HfTokenizer:
    """The tokenizer for untrusted text: `<|im_end|>` in a corpus is not a special token."""
    plain = HfTokenizer.from_str(self._hf.to_str())
    plain.encode_special_tokens = True
    return plain

  @functools.cached_property
  def special_tokens(self) -> dict[str, int]:
    """The ids of special tokens by their names, `<|im_end|>` for instance."""
    return {token.content: i for i, token in self._hf.get_added_tokens_decoder().items()
            if token.special}

  @functools.cached_property
  def token_ids_sha256(self) -> str:
    """A hash of the ids of all tokens: equal for tokenizers whose ids have the same meaning."""
    ids = self._hf.get_vocab(with_added_tokens=True)
    return hashlib.sha256(json.dumps(ids, sort_keys=True).encode()).hexdigest()

  @property
  def highest_id(self) -> int:
    """The highest id in encoded texts, including start and end tokens."""
    ids = set(self._hf.get_vocab(with_added_tokens=True).values())
    ids -= set(self.special_tokens.values())
    return max(ids | self.end_ids | {self.start_id or 0})

  def single_id(self, text: str) -> int:
    """Returns the id of `text`, which must be a single token.

    Raises:
      UserError: it is encoded as several tokens.
    """
    ids = self.encode(text)
    if len(ids) != 1:
      raise UserError(f'{text!r} must be a single token of the model to start a call, not '
                      f'{len(ids)} tokens')
    return ids[0]

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """Returns the text of `ids`. Invalid UTF-8 is decoded as replacement characters."""
    return b''.join(self.token_bytes[i] for i in ids).decode('utf-8', errors='replace')

  def characters_before(self, text: str, position: int) -> int:
    """Returns the number of complete characters of `text` before its token at `position`."""
    spelled = b''.join(self.token_bytes[i] for i in self.encode(text)[:position])
    return len(spelled.decode('utf-8', errors='ignore'))

  def character_offsets(self, text: str) -> list[int]:
    """Returns for each token of `text` the number of complete characters before it."""
    tokens = [self.token_bytes[i] for i in self.encode(text)]
    spelled = np.frombuffer(b''.join(tokens), np.uint8)
    if not len(spelled):
      return [0 for _ in tokens]
    starts = spelled & 0xC0 != 0x80  # of the bytes, those that begin a character
    at = np.minimum(np.cumsum([0, *map(len, tokens)])[:-1], len(spelled) - 1)
    return (np.cumsum(starts)[at] - 1).tolist()

  def spells(self, text: str) -> bool:
    """Returns whether `text` is unchanged by encoding and decoding.

    Some vocabularies lack control characters.
    """
    return self.decode(self.encode(text)) == text

  @functools.cached_property
  def token_bytes(self) -> list[bytes]:
    """The bytes of each id. The tokens of a text concatenate to its UTF-8 encoding."""
    byte_level = any(step['type'] == 'ByteLevel' for step in steps(self._hf.decoder))
    to_bytes = _byte_level if byte_level else _sentencepiece
    return [to_bytes(self._hf.id_to_token(i) or '') for i in range(self.vocab_size)]

  @functools.cached_property
  def starts_character(self) -> np.ndarray:
    """Whether each id starts at a character boundary, bool [V]. Calls must not split characters."""
    return np.array([not token or token[0] & 0xC0 != 0x80 for token in self.token_bytes])


def _byte_level(token: str) -> bytes:
  if all(character in _BYTES for character in token):
    return bytes(_BYTES[character] for character in token)
  return token.encode('utf-8')


def _sentencepiece(token: str) -> bytes:
  if byte := _BYTE.fullmatch(token):
    return bytes.fromhex(byte[1])
  return token.replace(_SPACE, ' ').encode('utf-8')


def _add_tokens(hf: HfTokenizer, special: Sequence[str], added: Sequence[str]) -> None:
  hf.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
  hf.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])


def _check_ids(hf: HfTokenizer, path: epath.Path) -> None:
  """Raises UserError for ids that are far apart: the library would go through all in between."""
  highest = max(hf.get_vocab(with_added_tokens=True).values(), default=0)
  if highest > _MAX_ID:
    raise UserError(f'the tokenizer in {path} has the id {highest}; no vocabulary is that large')


@contextlib.contextmanager
def _as_user_errors(path: epath.Path) -> Iterator[None]:
  """Turns errors of the `tokenizers` library into a UserError of one line."""
  try:
    with silence_native_stderr():
      yield
  except (UserError, KeyboardInterrupt, SystemExit):
    raise
  # The library raises plain Exceptions. A Rust panic is a BaseException of no public class.
  except BaseException as error:
    reason = ' '.join(str(error).split())
    raise UserError(f'no usable tokenizer in {path}: {reason}') from error
