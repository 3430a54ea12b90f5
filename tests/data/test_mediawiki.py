"""Wikitext becomes prose, and dumps are read one page at a time."""

import bz2
import pathlib

import pytest

from toolformer_jax.data.mediawiki import is_dump, read_pages
from toolformer_jax.data.passages import Page
from toolformer_jax.data.wikitext import plain_text
from toolformer_jax.errors import UserError

PAGE = '''{{Infobox harbour|name=Port Quill}}
[[File:Quill.jpg|thumb|The [[harbour]] at dawn]]
''' + """'''Port Quill''' ({{IPAc-en|k|w|ɪ|l}}; {{lang-la|Portus Calami}}) is a ''small''
[[port|harbour]] by the sea.<ref name="a">{{cite web|url=http://example.org}}</ref><!-- x --> It
lies {{convert|12|mi|km}} from [[Inkwell]]&nbsp;Bay ({{IPA|x}}).<ref name="a" />

== History ==
It was founded in 1801 by [http://example.org settlers].
* one wharf
* two cranes

{| class="wikitable"
! Year !! Ships
|-
| 1900 || 12
|}

=== Trade ===
The tide is <math>a = b</math> high.

Salt was sold.

== References ==
{{reflist}}

=== Books ===
A book.

== Today ==
It sleeps.

[[Category:Ports]]
[[de:Port Quill]]
"""
TEXT = '''Port Quill (Portus Calami) is a small harbour by the sea. It lies 12 mi from Inkwell Bay.

== History ==

It was founded in 1801 by settlers.

one wharf

two cranes

=== Trade ===

Salt was sold.

== Today ==

It sleeps.'''


def dump(pages: str) -> bytes:
  return bz2.compress(
    f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{pages}</mediawiki>'.encode()
  )


def page(title: str, text: str, namespace: int = 0, extra: str = '') -> str:
  return (f'<page><title>{title}</title><ns>{namespace}</ns>{extra}'
          f'<revision><text>{text}</text></revision></page>')


def test_keeps_the_prose_alone():
  assert plain_text(PAGE) == TEXT


@pytest.mark.parametrize('wikitext, text', [
  ('{{lang|grc|λόγος}} means word', 'λόγος means word'),
  ('{{Convert|3|to|5|km2|sqmi}}', '3 to 5 km²'),
  ('a {{citation needed|date=May}} , b', 'a, b'),
  ('tea (, or {{IPA|x}}; ) and', 'tea (or) and'),
  ("'''''both''''' and ''one''", 'both and one'),
  ('[[A|b]]s, [[C]] and [[Category:D]]', 'bs, C and'),
  ('see {{unclosed and [[more', ''),
  ('first<br />second', 'first second'),
  ('; term\n: meaning', 'term\n\nmeaning'),
  ('<gallery>\nFile:A.jpg|x\n</gallery>\nYes.', 'Yes.'),
  ('', ''),
])
def test_small_cases(wikitext, text):
  assert plain_text(wikitext) == text


def test_reads_articles_only(tmp_path):
  path = tmp_path / 'dump.xml.bz2'
  path.write_bytes(dump(
    page('One', 'First &amp; foremost.')
    + page('Talk:One', 'Chatter.', namespace=1)
    + page('Uno', '#REDIRECT [[One]]', extra='<redirect title="One" />')
    + page('Empty', '{{stub}}')
    + page('Two', 'Second.')
  ))
  assert list(read_pages(path)) == [Page('One', 'First & foremost.'), Page('Two', 'Second.')]


def test_pages_come_before_the_end_is_read(tmp_path):
  path = tmp_path / 'dump.xml.bz2'
  # Two streams, as in the dumps of Wikipedia; what the second lacks is not known to the first.
  first = page('One', 'First.') + ' ' * 200000
  start = f'<mediawiki xmlns="http://m/">{first}'.encode()
  path.write_bytes(bz2.compress(start) + bz2.compress(b''))
  pages = read_pages(path)
  assert next(pages).title == 'One'
  with pytest.raises(UserError, match='cannot read .*dump.xml.bz2 as a MediaWiki dump'):
    list(pages)


@pytest.mark.parametrize('content', [b'', b'no bz2', dump('')[:-8], bz2.compress(b'{"text": 1}')])
def test_damaged_dump(tmp_path, content):
  path = tmp_path / 'dump.xml.bz2'
  path.write_bytes(content)
  with pytest.raises(UserError, match='as a MediaWiki dump'):
    list(read_pages(path))


def test_missing_dump(tmp_path):
  with pytest.raises(UserError, match='cannot read'):
    list(read_pages(tmp_path / 'none.xml.bz2'))


def test_reads_the_newest_revision(tmp_path):
  revisions = ''.join(
      f'<revision><timestamp>{time}</timestamp><text>{text}</text></revision>'
      for time, text in [('2010-01-01T00:00:00Z', 'Old.'), ('2012-01-01T00:00:00Z', 'New.'),
                         ('2011-01-01T00:00:00Z', 'Middle.')])
  path = tmp_path / 'dump.xml.bz2'
  path.write_bytes(dump(f'<page><title>One</title><ns>0</ns>{revisions}</page>'))
  assert list(read_pages(path)) == [Page('One', 'New.')]


def test_a_dump_names_its_namespaces(tmp_path):
  names = ('<siteinfo><namespaces><namespace key="6">Bilo</namespace>'
           '<namespace key="0" /></namespaces></siteinfo>')
  path = tmp_path / 'dump.xml'
  path.write_bytes(bz2.decompress(dump(names + page('One', '[[Bilo:A.jpg|mini|Ein Bild]]Prose.'))))
  assert list(read_pages(path)) == [Page('One', 'Prose.')]


def test_a_page_with_too_much_markup_is_counted(tmp_path, caplog):
  path = tmp_path / 'dump.xml.bz2'
  path.write_bytes(dump(page('Long', '\n* a' * 20_000) + page('Two', 'Second.')))
  assert list(read_pages(path)) == [Page('Two', 'Second.')]
  assert 'left out 1 pages' in caplog.text


@pytest.mark.parametrize('name, dump', [
  ('a.xml', True), ('a.xml.bz2', True), ('a.xml.gz', True), ('a.bz2', True), ('a.jsonl', False),
  ('a.jsonl.bz2', False), ('a.json.bz2', False), ('a.jsonl.xz', False), ('a', False),
])
def test_names_of_dumps(name, dump):
  assert is_dump(pathlib.Path(name)) == dump
