"""Reading rendered text."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.tools.base import ToolError
from toolformer_jax.tools.ocr import OCR, OcrConfig, Piece, text_of

from .made_media import context, rendered

WORDS = ('Bread Butter Coffee Garden Harbour Kitchen Market Pencil Silver Station Ticket Window '
         '3.20 14.75 1984 27 640').split()


@pytest.fixture(scope='module')
def ocr():
  pytest.importorskip('rapidocr')
  return OCR()


@pytest.mark.parametrize('seed', range(4))
def test_rendered_lines_are_read_in_order(ocr, tmp_path, seed):
  draw = random.Random(seed)
  lines = [' '.join(draw.sample(WORDS, 3)) for _ in range(4)]
  assert ocr('image 1', context(tmp_path, rendered(lines))) == '; '.join(lines)


def test_the_two_columns_of_a_receipt_are_read_line_by_line(ocr, tmp_path):
  lines = [('Coffee', '3.20'), ('Bread', '14.75'), ('TOTAL', '17.95')]
  read = ocr('"Image  1"', context(tmp_path, rendered(lines)))
  assert read == '; '.join(map(' '.join, lines))


def test_a_sentence_goes_on_in_the_next_line(ocr, tmp_path):
  lines = ['The harbour is closed', 'until the end of March', 'TICKETS', 'From the kitchen']
  read = ocr('image 1', context(tmp_path, rendered(lines)))
  assert read == ('The harbour is closed until the end of March; TICKETS; From the kitchen')


@pytest.mark.parametrize('size', [9, 60])
def test_small_and_large_letters_are_read(ocr, tmp_path, size):
  read = ocr('image 1', context(tmp_path, rendered(['Silver Station 1984'], size, 16 * size)))
  assert read.replace(' ', '') == 'SilverStation1984'  # the gaps of small letters are unsure


def test_an_empty_picture_has_no_result(ocr, tmp_path):
  with pytest.raises(ToolError, match='no text'):
    ocr('image 1', context(tmp_path, rendered([''])))


@pytest.mark.parametrize('shape', [(1, 50_000), (3_000, 1), (20, 40_000)])
def test_a_very_narrow_picture_has_no_result(ocr, shape):
  with pytest.raises(ToolError, match='too narrow'):
    ocr.read(np.zeros((*shape, 3), np.uint8))


@pytest.mark.parametrize('shape', [(21, 2_100), (2_100, 21), (1, 1), (1, 100)])
def test_narrow_pictures_are_searched(ocr, shape):
  assert ocr.read(np.full((*shape, 3), 255, np.uint8)) == []


def test_a_long_text_is_cut(ocr, tmp_path):
  given = context(tmp_path, rendered(['Coffee Bread Ticket'] * 5))
  short = OCR(OcrConfig(max_chars=50))('image 1', given)
  assert len(short) <= 50 and short.endswith(' ...')
  assert ocr('image 1', given).startswith(short.removesuffix(' ...'))


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), max_size=6),
       st.randoms(use_true_random=False), st.floats(-3, 3))
def test_the_order_of_pieces_does_not_matter(lines, chance, slope):
  """Lines of height 20, 50 apart, that may lean a little."""
  pieces = [Piece(word, 100.0 * column, 50 * row + slope * column, 50 * row + slope * column + 20)
            for row, line in enumerate(lines) for column, word in enumerate(line)]
  expected = '; '.join(map(' '.join, lines))
  chance.shuffle(pieces)
  assert text_of(pieces) == expected
