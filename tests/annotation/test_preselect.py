"""The heuristics of the paper's appendix A, each with its boundaries."""

import re
import time
from collections import Counter

import pytest

from toolformer_jax.annotation.documents import split_and_filter
from toolformer_jax.annotation.preselect import preselect, with_heuristic
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.data.records import Document
from toolformer_jax.media.table import Medium


@pytest.fixture(scope='module')
def smollm2_tokenizer(smollm2_path):
  return GgufFile(smollm2_path).tokenizer()


def words(text: str) -> list[int]:
  """A tokenizer of words, and of single Chinese characters."""
  return [match.start() for match in re.finditer(r'[\u3400-\u9fff]|[^\s\u3400-\u9fff]+', text)]


def selects(tool: str, text: str, seed: int = 0, token_offsets=words, **fields) -> bool:
  return bool(preselect([tool], Document('d', text, **fields), token_offsets, seed)[tool])


FILLER = ' word' * 96


@pytest.mark.parametrize('text', [
  'He had 12 and 30, so 42 in all.',
  'From 30 fell 12, which left 18.',
  '1,200 ants of 3 legs: 3,600 legs.',
  'Of 252 days, 723 hours: 2.87 each.',
  '5 and' + FILLER + ' 6 11',
  'This equals 5.',
  'a TOTAL OF $5',
  'an average of 12.5',
  'is equal to 4',
  'x=3',
])
def test_calculator_takes(text):
  assert selects('Calculator', text)


@pytest.mark.parametrize('text', [
  'No number.',
  'He had 12 and 30.',
  'It equals out, in total 5.',
  'He had 12 and 30, so 43 in all.',
  '5 and' + FILLER + ' and 6 11',
  'Version 1.2.3 of A4, the 5th, and 2x.',
  'Numbers 111111111111111111111111 1 111111111111111111111112',
])
def test_calculator_leaves(text):
  assert not selects('Calculator', text)


def test_window_holds_all_three():
  near = ' word' * 60
  assert not selects('Calculator', f'5 {near} 6 {near} 11')
  assert selects('Calculator', f'5 {near} 6 11 {near} 100')


def chosen(document: Document, seed: int) -> bool:
  return bool(preselect(['Calculator'], document, words, seed)['Calculator'])


def test_a_hundredth_of_the_numerous_documents():
  documents = [Document(f'd{n}', 'Rooms 17, 29 and 63.') for n in range(5000)]
  taken = [d.id for d in documents if chosen(d, seed=1)]
  assert 30 < len(taken) < 70
  assert taken == [d.id for d in documents if chosen(d, seed=1)]
  assert taken != [d.id for d in documents if chosen(d, seed=2)]


def test_many_numbers_take_linear_time():
  start = time.process_time()
  selects('Calculator', ' '.join(str(2 * n * n + 10**7) for n in range(300)))
  selects('Calculator', ' '.join(['7'] * 3000))
  assert time.process_time() - start < 5


def test_calendar_needs_a_date():
  assert selects('Calendar', 'x', date='2018-03-21')
  assert not selects('Calendar', 'x')


ENGLISH = 'This sentence about the weather in spring is written in English, as you can see. '
SPANISH = 'El gobierno anunció ayer que las nuevas reglas entrarán en vigor el próximo año. '


@pytest.mark.parametrize(('text', 'selected'), [
    (ENGLISH + SPANISH + ENGLISH, True),
    (ENGLISH + '高淳县位于南京市最南端，是一个美丽的地方，有很多人住在那里。' + ENGLISH, True),
    (SPANISH + ENGLISH, False),
    (ENGLISH + SPANISH, False),
    (ENGLISH * 3, False),
    (SPANISH * 3, False),
    (ENGLISH + '12 34 56 + 78 % 90 12 34 56 78 90 12 34 56 78 90 12 34 56 78 90 ' + ENGLISH, False),
    ('', False),
])
def test_translation_needs_foreign_text_within_english(text, selected):
  assert selects('MT', text) == selected


def test_the_paragraph_that_has_the_foreign_text_is_taken():
  text = f'{ENGLISH}\n{ENGLISH}{SPANISH}{ENGLISH}\n\n{SPANISH}\n{ENGLISH}'
  [(start, end)] = preselect(['MT'], Document('d', text), words, 0)['MT']
  assert text[start:end] == ENGLISH + SPANISH + ENGLISH


def test_distances_are_those_of_the_tokenizer(smollm2_tokenizer):
  offsets = smollm2_tokenizer.character_offsets
  text = 'Counter-revolutionaries: 5' + ' internationalization' * 30 + ' 6 11'
  apart = offsets(text).index(text.index('11')) - offsets(text).index(text.index('5'))
  for more, found in ((99 - apart, True), (100 - apart, False)):
    between = text.replace(' 6', ' the' * more + ' 6')
    assert selects('Calculator', between, token_offsets=offsets) == found


@pytest.mark.parametrize(('text', 'selected'), [
    (ENGLISH + SPANISH + ENGLISH, True),
    (ENGLISH + '高淳县位于南京市最南端，是一个美丽的地方，有很多人住在那里。' + ENGLISH, True),
    (ENGLISH * 3, False),
    (SPANISH * 3, False),
])
def test_chunks_are_ten_tokens_of_the_model(smollm2_tokenizer, text, selected):
  assert selects('MT', text, token_offsets=smollm2_tokenizer.character_offsets) == selected


def test_offsets_are_the_characters_before_each_token(smollm2_tokenizer):
  for text in ('', 'a', 'He said: 高淳县 is 🙂 far', ENGLISH + SPANISH):
    assert smollm2_tokenizer.character_offsets(text) == [
        smollm2_tokenizer.characters_before(text, i)
        for i in range(len(smollm2_tokenizer.encode(text)))]


def test_whole_documents_are_judged_before_they_are_split(smollm2_tokenizer):
  """The numbers are far apart for one text of the run, and near enough in the document."""
  text = 'He had 12 eggs' + ' the' * 30 + '.\nShe had 30' + ' the' * 30 + '.\nThey had 42.'
  documents = [Document('sum', text), Document('none', text.replace('42', '43'))]
  found = split_and_filter(
      documents, Counter(), tokenizer=smollm2_tokenizer, syntax=DEFAULT_SYNTAX,
      max_tokens=45, heuristics=['Calculator'], seed=0)
  assert [(document.id, tools) for document, tools in found] == [
      ('sum-0', {'Calculator'}), ('sum-1', {'Calculator'}), ('none-0', set()), ('none-1', set())]


def test_a_paragraph_with_foreign_text_is_taken_in_all_of_its_pieces(smollm2_tokenizer):
  text = f'{ENGLISH}\n{ENGLISH}{SPANISH}{ENGLISH}'
  found = list(split_and_filter(
      [Document('d', text)], Counter(), tokenizer=smollm2_tokenizer, syntax=DEFAULT_SYNTAX,
      max_tokens=24, heuristics=['MT'], seed=0))
  assert [bool(tools) for _, tools in found] == [False, *[True] * (len(found) - 1)]
  assert len(found) > 2


@pytest.mark.parametrize('tool, kinds', [
  ('OCR', {'image'}), ('Recognize', {'image'}), ('Transcribe', {'audio', 'video'}),
  ('Frames', {'video'})])
def test_a_reader_of_media_takes_what_names_a_medium_of_its_kind(tool, kinds):
  for kind in ('image', 'audio', 'video'):
    media = (Medium(kind, 'a.bin', '0'),)
    assert selects(tool, f'What we have ({kind} 1) is old.', media=media) == (kind in kinds)
    assert not selects(tool, f'What we have ({kind} 1) is old.')
    assert not selects(tool, f'What we have is an {kind}.', media=media)
    for other in {'image', 'audio', 'video'} - {kind}:
      assert not selects(tool, f'What we have ({other} 1) is old.', media=media)


def test_of_a_long_document_the_pieces_with_handles_are_taken(smollm2_tokenizer):
  filler = 'Nothing is to be seen here, and nobody knows why. ' * 20
  document = Document('d', f'{filler}\n\nThe sign (image 1) is old.\n\n{filler}',
                      media=(Medium('image', 'a.png', '0'),))
  pieces = list(split_and_filter(
      [document], Counter(), tokenizer=smollm2_tokenizer, syntax=DEFAULT_SYNTAX, max_tokens=64,
      heuristics=['OCR'], seed=0))
  assert len(pieces) > 3
  for piece, selected_for in pieces:
    assert (selected_for == {'OCR'}) == ('image 1' in piece.text)


def test_other_tools_have_no_heuristic():
  tools = ['WikiSearch', 'MT', 'OCR', 'MyTool', 'Calculator', 'Speak']
  assert with_heuristic(tools) == ['Calculator', 'MT', 'OCR']
  assert with_heuristic(tools, preselect=False) == ['OCR']  # which reads nothing without media
