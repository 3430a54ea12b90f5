"""The real tokenizer, rebuilt from the GGUF metadata."""

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

# The vocabulary lacks most control characters, and the lead bytes of planes without characters.
TEXTS = st.text(st.characters(exclude_categories=('Cs', 'Cc', 'Cn', 'Co')) | st.just('\n'))


@pytest.fixture(scope='session')
def smollm2(smollm2_path):
  return GgufFile(smollm2_path).tokenizer()


@given(TEXTS)
def test_tokens_spell_the_text(smollm2, text):
  ids = smollm2.encode(text)
  assert b''.join(smollm2.token_bytes[i] for i in ids) == text.encode()
  assert smollm2.decode(ids) == text


@given(TEXTS)
def test_a_text_can_be_cut_where_a_character_starts(smollm2, text):
  ids = smollm2.encode(text)
  for position, starts in enumerate(smollm2.starts_character[ids]):
    if starts:
      assert smollm2.decode(ids[:position]) + smollm2.decode(ids[position:]) == text


def test_what_the_vocabulary_lacks_is_told(smollm2):
  assert smollm2.spells('naïve 東京 🎉\n')
  assert not smollm2.spells('a\x16b')


def test_digits_are_tokens_of_their_own(smollm2):
  assert [smollm2.token_bytes[i] for i in smollm2.encode('a 1024')] == [
      b'a', b' ', b'1', b'0', b'2', b'4']


def test_special_tokens_in_a_text_are_letters(smollm2):
  ids = smollm2.encode('<|im_end|>')
  assert len(ids) > 1 and not set(ids) & smollm2.end_ids
  assert smollm2.decode(ids) == '<|im_end|>'


def test_saved_and_loaded_it_is_the_same(smollm2, tmp_path):
  smollm2.save(tmp_path)
  loaded = Tokenizer.load(tmp_path)
  text = 'In 2024, [Calculator(1 + 1) -> 2] naïve 東京.'
  assert loaded.encode(text) == smollm2.encode(text)
  assert (loaded.start_id, loaded.end_ids) == (smollm2.start_id, smollm2.end_ids)


def test_no_tokenizer_is_an_error_for_people(tmp_path):
  with pytest.raises(UserError, match='no usable tokenizer'):
    Tokenizer.load(tmp_path)


@pytest.mark.parametrize('saved', [True, False])
def test_ids_that_are_far_apart_are_refused_at_once(tokenizer, tmp_path, saved):
  """The library goes through all ids in between, and the copies that are made here took minutes."""
  tokenizer.save(tmp_path)
  file = tmp_path / 'tokenizer.json'
  fields = json.loads(file.read_text('utf-8'))
  fields['model']['vocab']['a'] = 2**31
  file.write_text(json.dumps(fields), 'utf-8')
  with pytest.raises(UserError, match='has the id 2147483648; no vocabulary is that large'):
    if saved:
      Tokenizer.load(tmp_path)
    else:
      Tokenizer.from_file(file, bos_id=None, eos_id=None)


def test_a_tokenizer_is_written_whole_or_not_at_all(tokenizer, tmp_path, monkeypatch):
  tokenizer.save(tmp_path)
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  assert before.keys() == {'tokenizer.json', 'tokenizer_ids.json'}
  def full_disk(descriptor):
    raise OSError(28, 'No space left on device')
  monkeypatch.setattr('os.fsync', full_disk)
  with pytest.raises(OSError, match='No space left'):
    tokenizer.save(tmp_path)
  assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@given(st.text(), st.integers(0, 80))
def test_characters_before_a_token_are_those_that_its_predecessors_spell(tokenizer, text, position):
  count = tokenizer.characters_before(text, position)
  spelled = b''.join(tokenizer.token_bytes[i] for i in tokenizer.encode(text)[:position])
  assert spelled.startswith(text[:count].encode())
  assert len(spelled) - len(text[:count].encode()) < 4


@pytest.fixture(scope='module')
def pieces():
  """SentencePiece's kind: a token for each byte, some letters, runs of spaces and line ends."""
  special, whole = ['<pad>', '<unk>', '<bos>'], ['\n\n', '  ', '<table>']
  letters = ['▁', 'a', 'b', 'é', '東', '[', '▁[', 'ab', '▁ab', 'abab']
  tokens = [*special, *whole, *(f'<0x{byte:02X}>' for byte in range(256)), *letters]
  return Tokenizer.sentencepiece_bpe(tokens, special, whole, '<unk>', bos_id=2, eos_id=None)


@given(st.text() | st.text('ab é東[\n<>table'))
def test_pieces_spell_any_text_without_their_own_sign_for_a_space(pieces, text):
  text = text.replace('▁', ' ').encode('utf-8', 'ignore').decode('utf-8')
  assert pieces.spells(text)


def test_pieces_are_merged_in_their_order(pieces):
  def spelled(text):
    return [pieces.token_bytes[i].decode() for i in pieces.encode(text)]
  assert spelled('abab ab') == ['abab', ' ab'] and spelled('   [') == ['  ', ' [']
  assert spelled('a\n\n\n<table>') == ['a', '\n\n', '\n', '<table>']
  assert pieces.start_id == 2 and pieces.encode('<bos>') != [2]


def test_a_piece_that_is_a_token_needs_no_merges():
  tokens = ['a', 'b', 'ab', 'aba']
  def ids(**options):
    made = Tokenizer.byte_level_bpe(tokens, [('a', 'b')], [], split_digits=False, bos_id=None,
                                    eos_id=None, **options)
    return made.encode('aba')
  assert ids() == [2, 0] and ids(ignore_merges=True) == [3]


@pytest.mark.parametrize('text', [None, b'ab', 3, 'a\ud800'])
def test_what_is_no_text_is_refused(tokenizer, text):
  with pytest.raises(UserError, match='not a text of Unicode characters'):
    tokenizer.encode(text)


NFC = tokenizers.normalizers.NFC()
PRE = tokenizers.pre_tokenizers


def _with_parts(pieces, **parts):
  """Returns the tokenizer.json of `pieces` with other parts; functions change those that it has."""
  content = pieces.content()
  for name, part in parts.items():
    content[name] = part(content[name]) if callable(part) else json.loads(part.__getstate__())
  return json.dumps(content)


def _from(content, tmp_path):
  file = tmp_path / 'tokenizer.json'
  file.write_text(content, 'utf-8')
  return Tokenizer.from_file(file, bos_id=None, eos_id=None)


@pytest.mark.parametrize(('parts', 'message'), [
  ({'normalizer': tokenizers.normalizers.Lowercase()}, 'the normalizer Lowercase changes texts'),
  ({'normalizer': tokenizers.normalizers.NFKC()}, 'the normalizer NFKC'),
  ({'normalizer': tokenizers.normalizers.NFD()}, 'the normalizer NFD'),
  ({'normalizer': tokenizers.normalizers.Strip()}, 'the normalizer Strip'),
  ({'normalizer': tokenizers.normalizers.Sequence([
      NFC, tokenizers.normalizers.StripAccents()])}, 'the normalizer StripAccents'),
  ({'normalizer': tokenizers.normalizers.Replace('1', '2')}, 'the normalizer Replace'),
  ({'normalizer': tokenizers.normalizers.BertNormalizer()}, 'the normalizer BertNormalizer'),
  ({'pre_tokenizer': PRE.Sequence([PRE.WhitespaceSplit(), PRE.ByteLevel(False)])},
   'the pre-tokenizer WhitespaceSplit removes characters'),
  ({'pre_tokenizer': PRE.Sequence([PRE.Split('-', 'removed'), PRE.ByteLevel(False)])},
   'the pre-tokenizer Split'),
  ({'pre_tokenizer': PRE.Sequence([PRE.Punctuation('removed'), PRE.ByteLevel(False)])},
   'the pre-tokenizer Punctuation'),
  ({'added_tokens': lambda tokens: [tokens[0] | {'special': False, 'lstrip': True}]},
   r"the added token '<\|endoftext\|>' \(\d+\) removes spaces"),
  ({'added_tokens': lambda tokens: [tokens[0] | {'special': False, 'rstrip': True}]},
   r"the added token '<\|endoftext\|>' \(\d+\) removes spaces"),
  ({'model': lambda model: model | {'end_of_word_suffix': '</w>'}}, 'prefix or suffix'),
])
@pytest.mark.parametrize('saved', [True, False])
def test_a_tokenizer_that_would_change_a_text_is_refused_by_its_part(
    tokenizer, tmp_path, parts, message, saved):
  tokenizer.save(tmp_path)
  content = _with_parts(tokenizer, **parts)
  (tmp_path / 'tokenizer.json').write_text(content, 'utf-8')
  with pytest.raises(UserError, match=message) as failure:
    if saved:
      Tokenizer.load(tmp_path)
    else:
      _from(content, tmp_path)
  assert 'tokenizer.json' in str(failure.value) and '\n' not in str(failure.value)


@pytest.mark.parametrize('parts', [
  {'normalizer': NFC},
  {'pre_tokenizer': PRE.Sequence([PRE.Split('-', 'isolated'), PRE.ByteLevel(False)])},
  {'pre_tokenizer': PRE.Sequence([
      PRE.Punctuation('contiguous'), PRE.Digits(True), PRE.ByteLevel(False)])},
  {'added_tokens': lambda tokens: [tokens[0] | {'rstrip': True, 'lstrip': True}]},
])
@pytest.mark.parametrize('text', [
  ' Hello  World \n\t', '- 1-2--<|endoftext|> ', 'ﬁ ½ ß İ ＡＢ', 'naïve 東京 🎉',
  '\r\n\x00\u00a0.'])
def test_a_tokenizer_that_splits_texts_alone_spells_them(tokenizer, tmp_path, parts, text):
  assert _from(_with_parts(tokenizer, **parts), tmp_path).spells(text)


def test_a_text_that_is_not_in_nfc_is_told_from_its_ids(tokenizer, tmp_path):
  made = _from(_with_parts(tokenizer, normalizer=NFC), tmp_path)
  assert made.spells('é') and not made.spells('e\u0301')


@pytest.mark.parametrize('bytes_lost', [0, 1])
@pytest.mark.parametrize('falls_back', [True, False])
def test_a_unigram_tokenizer_needs_all_bytes(tmp_path, falls_back, bytes_lost):
  made = tokenizers.Tokenizer(tokenizers.models.Unigram(
      [('<unk>', 0.0), ('▁', -1.0), ('a', -1.0), ('b', -1.0),
       *((f'<0x{byte:02X}>', -9.0) for byte in range(256 - bytes_lost))],
      unk_id=0, byte_fallback=falls_back))
  made.normalizer = tokenizers.normalizers.Replace(' ', '▁')
  made.decoder = tokenizers.decoders.ByteFallback()
  if falls_back and not bytes_lost:
    assert _from(made.to_str(), tmp_path).spells('a b é 東')
    return
  with pytest.raises(UserError, match='has no tokens of bytes'):
    _from(made.to_str(), tmp_path)
