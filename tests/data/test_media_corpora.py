"""Media of corpora: files of the corpus's folder become handles; nothing else is opened."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.data import hub_datasets
from toolformer_jax.data.corpus import CorpusConfig, corpus_hash, read_corpus
from toolformer_jax.data.input_texts import read_prompts, read_texts
from toolformer_jax.data.records import (
  AnnotatedDocument,
  Document,
  from_json,
  parse_records,
  record_line,
  to_json,
)
from toolformer_jax.errors import UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import MediaTable

from ..media.made_files import picture, sound


@pytest.fixture
def folder(tmp_path):
  """A folder with media, beside a secret outside of it."""
  (tmp_path / 'secret.png').write_bytes(picture(color='blue'))
  folder = tmp_path / 'corpus'
  (folder / 'images').mkdir(parents=True)
  (folder / 'images/a.png').write_bytes(picture())
  (folder / 'b.wav').write_bytes(sound(0.1))
  (folder / 'link.png').symlink_to(tmp_path / 'secret.png')
  (folder / 'out').symlink_to(tmp_path)
  (folder / 'inside.png').symlink_to(folder / 'images/a.png')
  (folder / 'text.png').write_text('not a picture')
  return folder


def write_rows(folder, *rows):
  path = folder / 'c.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def test_rows_name_files_of_their_folder(folder):
  path = write_rows(folder, {'text': 'A sign (image 1) and a voice (audio 1).',
                             'media': ['b.wav', 'images/a.png']}, {'text': 'Nothing.'})
  first, second = read_corpus(path)
  assert {handle: medium.path for handle, medium in MediaTable(first.media)} == {
      'audio 1': 'b.wav', 'image 1': 'images/a.png'}
  assert first.media[1].read_bytes() == picture() and second.media == ()


ESCAPES = ['../secret.png', 'images/../../secret.png', '/etc/passwd', 'link.png', 'out/secret.png',
           'http://localhost/a.png', 'https://example.org/a.png', 'file:///etc/passwd',
           'gs://bucket/a.png', 'data:image/png;base64,AAAA', 'C:\\a.png', '..\\secret.png', '~/a',
           'images/a.png\0', '', ' ', 'none.png', 'text.png', 'images', '//host/a.png']


@pytest.mark.parametrize('name', ESCAPES)
def test_what_leads_out_of_the_folder_is_refused_by_file_and_line(folder, name):
  path = write_rows(folder, {'text': 'a'}, {'text': 'b (image 1)', 'media': ['b.wav', name]})
  with pytest.raises(UserError, match=r'c\.jsonl:2: media ') as error:
    list(read_corpus(path))
  assert len(str(error.value).splitlines()) == 1
  with pytest.raises(UserError, match=r'c\.jsonl:2: media '):
    list(read_prompts(path))


@given(st.lists(st.sampled_from(['..', '.', 'images', 'out', 'a.png', 'secret.png', '', 'link.png',
                                 '\\', '%2e%2e', 'b.wav'])).map('/'.join))
def test_no_path_reaches_the_secret(tmp_path_factory, name):
  root = tmp_path_factory.getbasetemp() / 'reach'
  folder = root / 'corpus'
  if not folder.exists():
    (folder / 'images').mkdir(parents=True)
    (folder / 'images/a.png').write_bytes(picture())
    (root / 'secret.png').write_bytes(picture(color='blue'))
    (folder / 'link.png').symlink_to(root / 'secret.png')
    (folder / 'out').symlink_to(root)
  path = write_rows(folder, {'text': 'a', 'media': [name]})
  try:
    document, = read_corpus(path)
  except UserError:
    return
  assert [medium.read_bytes() for medium in document.media] == [picture()]


def test_links_inside_the_folder_are_followed(folder):
  path = write_rows(folder, {'text': 'a', 'media': ['inside.png']})
  assert next(read_corpus(path)).media[0].read_bytes() == picture()


@pytest.mark.parametrize('media', ['a.png', [1], {'a': 'b'}, [['a.png']]])
def test_a_field_of_another_meaning_is_refused_or_ignored(folder, media):
  path = write_rows(folder, {'text': 'a', 'media': media})
  with pytest.raises(UserError, match=r'must be a list of paths; CorpusConfig\.media = False'):
    list(read_corpus(path))
  assert [document.media for document in read_corpus(path, CorpusConfig(media=False))] == [()]
  assert [text.media for text in read_texts(path, with_context=False)] == [()]


def test_media_of_a_dataset_are_reported(monkeypatch, caplog):
  rows = [{'text': 'a', 'media': ['a.png']}, {'text': 'b', 'media': []}, {'text': 'c'}]
  monkeypatch.setattr(hub_datasets, 'read_rows', lambda name: iter(rows))
  assert [document.media for document in read_corpus('hf:some/set')] == [()] * 3
  assert 'the media of 1 rows were left out' in caplog.text
  caplog.clear()
  list(read_corpus('hf:some/set', CorpusConfig(media=False)))
  assert not caplog.text


def test_records_have_relative_paths_and_hashes(folder):
  path = write_rows(folder, {'text': 'a', 'media': ['images/a.png']}, {'text': 'b'})
  with_media, without = read_corpus(path)
  fields = to_json(with_media)
  assert fields['media'] == [{'kind': 'image', 'path': 'images/a.png',
                              'sha256': with_media.media[0].sha256}]
  assert 'media' not in to_json(without)
  assert str(folder) not in record_line(with_media)
  for document in (with_media, without):
    record = AnnotatedDocument(document, ())
    read, = parse_records(record_line(record).encode(), AnnotatedDocument, 'x')
    assert read == record


@pytest.mark.parametrize('media', [
  [{}], ['a.png'], [{'kind': 'text', 'path': 'a', 'sha256': 'b'}],
  [{'kind': 'image', 'path': 1, 'sha256': 'b'}], 7])
def test_broken_media_of_records_are_refused(media):
  with pytest.raises(TypeError):
    from_json(Document, {'id': 'a', 'text': 'b', 'media': media})


MARKDOWN = '''# A day at the shop

We bought bread ![the receipt](images/a.png "our receipt") and left.
<audio controls src="b.wav"></audio> ![far away](https://example.org/x.png) ![](<images/a.png>)
![secret](../secret.png) ![link](link.png) ![text](text.png) ![root](/etc/passwd)
'''
HTML = '''<html><head><title>A <b>shop</title><style>p { color: red }</style></head><body>
<h1>Bread</h1><p>We saw <img src="images/a.png?v=2" alt="a sign"> there.</p>
<script>let a = '<img src="b.wav">'</script>
<audio><source src="none.ogg"><source src="b.wav">Your browser is old.</audio>
<p>Then <img src="../secret.png" alt="hidden"> left.</p><img></body></html>'''


@pytest.fixture
def pages(folder):
  (folder / 'shop.md').write_text(MARKDOWN)
  (folder / 'web.html').write_text(HTML)
  (folder / 'images/below.md').write_text('See ![it](a.png) and ![voice](../b.wav).')
  return {document.id: document for document in read_corpus(folder)}


def test_media_of_markdown_become_handles_where_they_stood(pages):
  page = pages['shop.md']
  assert page.title == 'A day at the shop'
  assert page.text == '''# A day at the shop

We bought bread the receipt (image 1) and left.
(audio 1) far away (image 2)
secret link text root'''
  assert [medium.path for medium in page.media] == ['images/a.png', 'b.wav', 'images/a.png']


def test_pages_in_folders_may_name_files_above_them(pages):
  page = pages['images/below.md']
  assert page.text == 'See it (image 1) and voice (audio 1).'
  assert [medium.read_bytes() for medium in page.media] == [picture(), sound(0.1)]


def test_media_of_html_become_handles_where_they_stood(pages):
  page = pages['web.html']
  assert page.title == 'A shop' and [medium.path for medium in page.media] == ['images/a.png']
  assert 'We saw a sign (image 1) there.' in page.text
  for absent in ('color', 'let a', 'secret.png', 'browser'):
    assert absent not in page.text


def test_alternative_texts_are_kept_or_not(folder, pages):
  texts = [document.text for document in read_corpus(folder, CorpusConfig(alt_texts=False))]
  assert 'See (image 1) and (audio 1).' in texts
  assert not any(word in text for text in texts for word in ('receipt', 'hidden', 'a sign'))


def test_what_was_left_out_is_counted(folder, pages, caplog):
  list(read_corpus(folder))
  assert '8 media were left out' in caplog.text


def test_media_that_are_not_wanted_are_not_reported(folder, pages, caplog):
  assert not any(document.media for document in read_corpus(folder, CorpusConfig(media=False)))
  assert 'left out' not in caplog.text


@pytest.mark.parametrize('size', [10, 100_000])
def test_a_picture_inside_a_page_is_no_text(tmp_path, caplog, size):
  address = f'data:image/png;charset=x;base64,{"Ab+/" * size}=='
  (tmp_path / 'a.md').write_text(f'We saw ![a sign]({address}) and <img src="{address}"> left.')
  (tmp_path / 'b.html').write_text(f'We saw <img alt="a sign" src="{address}"> and left.')
  texts = [document.text for document in read_corpus(tmp_path)]
  assert texts == ['We saw a sign and  left.', 'We saw a sign and left.']
  assert '3 media were left out' in caplog.text


def test_a_page_that_is_a_link_out_of_the_folder_is_refused(folder, pages, tmp_path):
  (folder / 'Talk: a page.md').symlink_to(folder / 'shop.md')
  list(read_corpus(folder))
  (tmp_path / 'secret.txt').write_text('secret words')
  (folder / 'notes.md').symlink_to(tmp_path / 'secret.txt')
  with pytest.raises(UserError, match=r'notes\.md: a link leads out of the folder'):
    list(read_corpus(folder))


@pytest.mark.parametrize('page', [
  '<html><head><title>T</title><body>Words</body></html>',
  '<title>T</title><meta charset="utf-8"><p>Words',
  '<head><title>T</title><style>p {}</style>Words'])
def test_a_page_without_the_end_of_its_head_loses_no_text(tmp_path, page):
  (tmp_path / 'a.html').write_text(page)
  document, = read_corpus(tmp_path)
  assert (document.title, document.text) == ('T', 'Words')


@pytest.mark.parametrize(('line', 'title'), [
  ('# A  title', 'A  title'), ('#  C# and F# ##', 'C# and F#'), ('# C#', 'C#'), ('#', None),
  ('#tag', None), ('## Below', None), ('# a' + ' ' * 100_000 + 'b', 'a' + ' ' * 100_000 + 'b')])
def test_the_title_of_markdown_is_its_first_heading(tmp_path, line, title):
  (tmp_path / 'a.md').write_text(f'{line}\nwords')
  document, = read_corpus(tmp_path)
  assert document.title == title


def test_the_hash_of_a_folder_has_its_media_in_it(folder, pages):
  (folder / 'model').mkdir()  # a folder of this name is not all of a corpus
  before = corpus_hash(str(folder))
  assert corpus_hash(str(folder)) == before
  (folder / 'images/a.png').write_bytes(picture(color='green'))
  assert corpus_hash(str(folder)) != before
  assert corpus_hash(str(folder), CorpusConfig(alt_texts=False)) != corpus_hash(str(folder))


def test_a_limit_that_leaves_out_media_is_in_the_hash_of_a_folder(folder, pages):
  small = MediaLimits(max_bytes=100_000)
  assert corpus_hash(str(folder), limits=small) != corpus_hash(str(folder))
  path = write_rows(folder, {'text': 'a', 'media': ['b.wav']})  # there it is an error
  assert corpus_hash(str(path), limits=small) == corpus_hash(str(path))
  with pytest.raises(UserError, match='max_bytes'):
    list(read_corpus(path, limits=MediaLimits(max_bytes=100)))


def test_a_folder_without_pages_is_no_corpus(tmp_path):
  with pytest.raises(UserError, match='without pages'):
    list(read_corpus(tmp_path))


@given(st.text(alphabet='![]()<>"\'/. abimg=src\n', max_size=200))
def test_any_page_can_be_read(tmp_path_factory, source):
  folder = tmp_path_factory.getbasetemp() / 'pages'
  os.makedirs(folder, exist_ok=True)
  for name in ('a.md', 'b.html'):
    (folder / name).write_text(f'Words. {source}')
  assert all(document.media == () for document in read_corpus(folder))
