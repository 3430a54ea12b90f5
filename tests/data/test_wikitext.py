"""Wikitext becomes the prose that a reader sees, whatever markup it has, and in bounded time."""

import time

import hypothesis
import pytest
from hypothesis import strategies

from toolformer_jax.data.wikitext import plain_text
from toolformer_jax.data.wikitext_blocks import TooMuchMarkup, split_blocks
from toolformer_jax.data.wikitext_holes import HOLE


@pytest.mark.parametrize('wikitext, text', [
  ('born (1 May 1848{{snd}}2 June 1934) in{{nbsp}}Rome{{mdash}}a city',
   'born (1 May 1848 – 2 June 1934) in Rome—a city'),
  ('a {{formatnum:1234567.5}} b {{formatnum:-10}} c {{nts|468}} d', 'a 1,234,567.5 b -10 c 468 d'),
  ('{{circa|1200}} by {{ill|Pere Roca|ca}} for {{USD|5 million}}',
   'c. 1200 by Pere Roca for US$5 million'),
  ('had, {{as of|2010|5|lc=y}}, and {{HMS|Ajax|22}}', 'had, as of May 2010, and HMS Ajax (22)'),
  ('{{As_of|2010}} it is {{Template:nowrap|5 t}}', 'As of 2010 it is 5 t'),
  ('the {{sclass|Ohio|submarine}} {{ship|MV|Wool}}', 'the Ohio-class submarine MV Wool'),
  ('by {{ship|MV|}} then', ''),
  ('{{convert|6|ft|8|in|m}} or {{convert|6|ft|m|2}}', '6 ft 8 in or 6 ft'),
  ('{{cvt|10|to(-)|20|km|mi}} and {{convert|3|x|4|x|5|m|ft}}', '10–20 km and 3 × 4 × 5 m'),
  ('a {{convert|40|acre|ha|adj=on}} lot', 'a 40-acre lot'),
  ('the 20{{sup|th}} and x{{sup|2}}', ''),
  ('the 20<sup>th</sup> year', 'the 20th year'),
  ('an area of 5 m<sup>2</sup>', ''),
  # A template that is not known leaves its paragraph out, if it may stand in a sentence.
  ('It is {{nobody knows|1}} long.\n\nYes.', 'Yes.'),
  ('{{nobody knows|1}} is long.\n\nYes.', 'Yes.'),
  ('* {{nobody knows|1}} is long\n* yes', 'yes'),
  ('{{small|{{nobody knows}}}} is long.\n\nYes.', 'Yes.'),
  ('It is long.{{some note}} It is old.', 'It is long. It is old.'),
  ('{{some box|a=b}}\nIt is old.', 'It is old.'),
  ("{{some box|a=b}}'''It''' is old.", 'It is old.'),
  ('{{some box\n|a=b\n}}{{other box}}\n\nIt is old.', 'It is old.'),
  # Links.
  ('in [[CSI: Miami]], [[Re: Zero]] and [[Law: a book|law]]', 'in CSI: Miami, Re: Zero and law'),
  ('[[Datei:A.jpg|mini|Ein [[Bild]]]]Berlin', 'Berlin'),
  ('see [[:Category:Ports]] and [[:de:Hafen]]', 'see Category:Ports and de:Hafen'),
  ('the end [[fr:Port]] [[Catégorie:Ports]]', 'the end'),
  ('see [[A&nbsp;B]]', 'see A B'),
  # What is never closed takes only its own paragraph with it.
  ('One {{a| two\n\nThree.', 'Three.'),
  ('One <b>two\n\nThree.', 'Three.'),
  ('One [http://a.org two\n\nThree.', 'Three.'),
  ('One <p>two\n\nThree.', 'One\n\ntwo\n\nThree.'),
  ('One <ref>two\n\nThree <ref>x</ref>.', 'Three.'),
  ('One.<!-- two\n\nThree.', 'One.'),
])
def test_plain_text(wikitext, text):
  assert plain_text(wikitext) == text


def test_a_block_is_a_line_or_what_brackets_join():
  assert split_blocks('a\n{{b\n|c}} d\n<div>e\n</div>\n[[f\n') == [
      'a', '{{b\n|c}} d', '<div>e\n</div>', f'{HOLE}f', '']


@pytest.mark.parametrize('piece', [
  '{{a|', '{{{a|', '[[a|', '[http://a ', '<ref ', '<ref>', '<a ', '<b>', '<b x="', '<!--', '{|\n|',
  '{|\n|-\n', "''''' a ", '\n*a', '{{a|{{b|', '[[a|{{b|', '<ref name="', '<math>', '<gallery>',
  '<div style="{{a|', '== ', ' ', '=', '*a\n', ';a:b\n', '== a ==\n', ':', '{{{a|b}}', '{{a|b}}{',
  '{|\n|-\n|a\n|}', "'''[[a|''b]]", "''<b>'''b</b> ", "''[http://a '''b] ", "''{{small|'''b}} ",
])
@pytest.mark.parametrize('size', [32_000, 100_000])
def test_unclosed_markup_takes_bounded_time(piece, size):
  start = time.process_time()
  try:
    plain_text((piece * size)[:size])
  except TooMuchMarkup:
    pass
  assert time.process_time() - start < 2  # an idle machine needs half a second


@hypothesis.given(strategies.lists(strategies.sampled_from(
    ['{{', '}}', '[[', ']]', '|', '<b>', '</b>', '<ref>', '</ref>', "''", '\n', '\n\n', '* ', '== ',
     ' ==', '{|', '|}', '<!--', '-->', 'word', ' ', '<', '>', '&amp;', '[http://a ', ']', '{{snd}}',
     '{{convert|', '<math>', '</math>', HOLE]), max_size=60))
def test_no_markup_is_left(pieces):
  text = plain_text(''.join(pieces))
  assert HOLE not in text and '{{' not in text and '[[' not in text and '<ref' not in text


@pytest.mark.parametrize('line', [
  'http://a/b ' * 170, '&amp;' * 380, '{{a' + '|b=c' * 400 + '}}', '[[a]]' + ' ' * 1900,
  '<b ' + 'a="b" ' * 300 + '>x</b>', '[[a]]' + '< ' * 900, '{{a|' + '&#32;' * 300 + '}}',
])
@pytest.mark.parametrize('size', [100_000, 1_000_000])
def test_long_pages_take_bounded_time(line, size):
  start = time.process_time()
  try:
    plain_text(f'{line}\n' * (size // len(line)))
  except TooMuchMarkup:
    pass
  assert time.process_time() - start < 2  # an idle machine needs half a second


@pytest.mark.parametrize('wikitext, text', [
  ("'''[[a|''b]] c'' d'''", 'b c d'), ("''<b>'''c</b> d", 'c d'), ("l''''amour'''", "l'amour"),
  ("it's ''d'''", "it's d"), ("''''''x'''''", "'x"),
])
def test_quotes_need_not_match(wikitext, text):
  assert plain_text(wikitext) == text


def test_a_null_character_ends_no_text():
  assert plain_text("A \0'''b''' c\0 [[d]].") == 'A b c d.'
  assert plain_text("\0''\0") == ''


def test_too_much_markup():
  with pytest.raises(TooMuchMarkup):
    plain_text('\n* a' * 20_000)
