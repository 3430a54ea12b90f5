"""Corpora of every form become Documents, or one line that says why not."""

import bz2
import gzip
import json
import lzma
import sys

import pytest

from toolformer_jax.data.corpus import CorpusConfig, read_corpus
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError

LINES = '{"text": "One."}\n\n{"text": "Two.", "id": 7, "source": "here", "other": [1]}\n'


def write(path, content: str):
  path.write_text(content, encoding='utf-8')
  return path


def test_reads_json_lines(tmp_path):
  path = write(tmp_path / 'small.corpus.jsonl', LINES)
  expected = [Document('small-000001', 'One.'), Document('7', 'Two.', source='here')]
  assert list(read_corpus(path)) == expected
  assert list(read_corpus(str(path))) == expected


def test_reads_compressed_files(tmp_path):
  zstandard = pytest.importorskip('zstandard')
  plain = write(tmp_path / 'small.jsonl', LINES)
  (tmp_path / 'small.jsonl.gz').write_bytes(gzip.compress(LINES.encode()))
  (tmp_path / 'small.jsonl.zst').write_bytes(zstandard.ZstdCompressor().compress(LINES.encode()))
  (tmp_path / 'small.jsonl.bz2').write_bytes(bz2.compress(LINES.encode()))
  (tmp_path / 'small.jsonl.xz').write_bytes(lzma.compress(LINES.encode()))
  for name in ('small.jsonl.gz', 'small.jsonl.zst', 'small.jsonl.bz2', 'small.jsonl.xz'):
    assert list(read_corpus(tmp_path / name)) == list(read_corpus(plain))


@pytest.mark.parametrize('fields, date', [
  ({'date': '2018-03-21'}, '2018-03-21'),
  ({'date': '2018-03-21T10:00:00Z'}, '2018-03-21'),
  ({'date': None, 'url': 'https://a.org/2019/4/5/x'}, '2019-04-05'),
  ({'date': 20180321}, '2018-03-21'),
  ({'date': 2018}, None),
  ({'date': 'yesterday'}, None),
  ({'date': '2018-02-30', 'url': 'https://a.org'}, None),
  ({}, None),
])
def test_dates(tmp_path, fields, date):
  path = write(tmp_path / 'c.jsonl', json.dumps({'text': 'x', **fields}))
  assert [document.date for document in read_corpus(path)] == [date]


def test_optional_fields_may_be_anything(tmp_path):
  line = '{"text": "x", "id": null, "url": [], "title": "", "source": 1}'
  path = write(tmp_path / 'c.jsonl', line)
  assert list(read_corpus(path)) == [Document('c-000001', 'x', source='1')]


@pytest.mark.parametrize('fields', [
  {'raw_content': 'x', 'url': 'https://a.org/2019/4/5/x', 'title': 'T', 'id': 'i'},  # CCNet
  {'text': 'x', 'id': 'i', 'created': '2024-01-01T00:00:00Z', 'added': '2024-02-02',  # Dolma
   'url': None, 'metadata': {'url': 'https://a.org/2019/4/5/x', 'title': 'T'}},
  {'text': b'x'.decode(), 'id': 'i', 'title': 'T', 'url': 'https://a.org/2019/4/5/x',  # C4
   'timestamp': '2020-01-01T00:00:00Z'},
])
def test_fields_of_known_corpora_are_understood(tmp_path, fields):
  path = write(tmp_path / 'c.jsonl', json.dumps(fields))
  assert list(read_corpus(path)) == [
      Document('i', 'x', url='https://a.org/2019/4/5/x', title='T', date='2019-04-05')]


def test_datasets_of_hugging_face_are_streamed(tmp_path, monkeypatch):
  pytest.importorskip('datasets', reason='the package datasets is not installed')
  monkeypatch.setenv('HF_HOME', str(tmp_path / 'cache'))
  folder = tmp_path / 'set'
  folder.mkdir()
  write(folder / 'train.jsonl', '{"text": "One.", "url": "u"}\n{"text": " ", "url": "u"}\n')
  write(folder / 'test.jsonl', '{"text": "Two.", "url": "v"}\n')
  assert list(read_corpus(f'hf:{folder}')) == [Document('000000001', 'One.', url='u')]
  assert list(read_corpus(f'hf:{folder}@test')) == [Document('000000001', 'Two.', url='v')]
  assert list(read_corpus(f'hf:{folder}@test[:1]')) == list(read_corpus(f'hf:{folder}@test'))
  with pytest.raises(UserError, match='holds no document'):
    list(read_corpus(f'hf:{folder}@test[:0]'))
  for name in f'hf:{folder}@nothing', f'hf:{tmp_path}/nowhere':
    with pytest.raises(UserError, match='cannot read hf:'):
      list(read_corpus(name))
  write(folder / 'train.jsonl', '{"words": "One."}\n')
  (folder / 'test.jsonl').unlink()
  with pytest.raises(UserError, match='row 1: .*the field `text`, a string; this one has words'):
    list(read_corpus(f'hf:{folder}'))


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  with pytest.raises(UserError, match=r'needs a package .*toolformer_jax\[data\]'):
    list(read_corpus('tfds:c4'))


@pytest.mark.parametrize('line, message', [
  ('{"text": "x"', r'c.jsonl:2: not JSON'),
  ('[1]', r'c.jsonl:2: not a JSON object'),
  ('{"title": "x"}', r'c.jsonl:2: a document needs the field `text`'),
  ('{"text": null}', r'c.jsonl:2: a document needs the field `text`'),
  ('[' * 100000, r'c.jsonl:2: not JSON'),
])
def test_unreadable_line(tmp_path, line, message):
  path = write(tmp_path / 'c.jsonl', '{"text": "fine"}\n' + line + '\n')
  documents = read_corpus(path)
  assert next(documents).text == 'fine'
  with pytest.raises(UserError, match=message) as caught:
    next(documents)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name, content', [
  ('c.jsonl', b'{"text": "\xff"}'),
  ('c.jsonl.gz', b'no gzip'),
  ('c.jsonl.gz', gzip.compress(LINES.encode(), mtime=0)[:-12]),
  ('c.jsonl.zst', b'no zstandard'),
])
def test_damaged_file(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=name):
    list(read_corpus(tmp_path / name))


@pytest.mark.parametrize('content', ['', '\n\n', '{"text": " "}\n'])
def test_empty_corpus(tmp_path, content):
  path = write(tmp_path / 'c.jsonl', content)
  with pytest.raises(UserError, match='holds no document'):
    list(read_corpus(path))


def test_ids_differ(tmp_path):
  path = write(tmp_path / 'c.jsonl', '{"text": "x", "id": 1}\n{"text": "y", "id": "1"}\n')
  with pytest.raises(UserError, match="two documents have the id '1'"):
    list(read_corpus(path))


def test_missing_file_offers_the_nearest(tmp_path):
  write(tmp_path / 'posts.jsonl', LINES)
  with pytest.raises(UserError, match=r'there is no file .*post.jsonl: did you mean posts.jsonl\?'):
    list(read_corpus(tmp_path / 'post.jsonl'))
  with pytest.raises(UserError, match='choose a file, or wikipedia-sample, word-problems'):
    list(read_corpus(tmp_path / 'other' / 'x.gz'))


def test_unknown_name_offers_the_nearest():
  with pytest.raises(UserError, match="corpus 'word-problem': did you mean word-problems?"):
    list(read_corpus('word-problem'))


def test_name_of_the_catalogue(tmp_path, monkeypatch):
  path = write(tmp_path / 'c.jsonl', LINES)
  monkeypatch.setattr('toolformer_jax.data.catalogue.fetch', lambda name: path)
  assert [document.text for document in read_corpus('word-problems')] == ['One.', 'Two.']


def test_paragraphs_of_a_dump(tmp_path):
  wikitext = 'Short one.\n\n== Head ==\n\n' + 'word ' * 30 + '\n\n' + 'more ' * 31
  (tmp_path / 'd.xml.bz2').write_bytes(bz2.compress(
    '<mediawiki xmlns="http://m/"><page><title>Pen &amp; ink</title><ns>0</ns><revision>'
    f'<text>{wikitext}</text></revision></page></mediawiki>'.encode()
  ))
  documents = list(read_corpus(tmp_path / 'd.xml.bz2', CorpusConfig(min_words=30)))
  assert [document.id for document in documents] == ['Pen & ink-2', 'Pen & ink-3']
  assert {document.title for document in documents} == {'Pen & ink'}
  assert documents[1].text == ' '.join(['more'] * 31)


def test_real_posts(data_dir):
  documents = list(read_corpus(data_dir / 'usgov_posts' / 'posts.jsonl.gz'))
  assert len(documents) == 2644
  assert all(document.date and document.url and document.title for document in documents)


REPEATED = ('{"text": "1", "id": "a"}\n{"text": "2", "id": "a-2"}\n'
            + 2 * '{"text": "3", "id": "a"}\n')


def test_repeated_ids(tmp_path, caplog):
  path = write(tmp_path / 'c.jsonl', REPEATED)
  with pytest.raises(UserError, match="have the id 'a'.*CorpusConfig.repeated_ids"):
    list(read_corpus(path))
  numbered = list(read_corpus(path, CorpusConfig(repeated_ids='number')))
  assert [document.id for document in numbered] == ['a', 'a-2', 'a-3', 'a-4']
  dropped = list(read_corpus(path, CorpusConfig(repeated_ids='drop')))
  assert [document.text for document in dropped] == ['1', '2']
  assert caplog.text.count('2 documents with the id of an earlier one') == 2


def test_rows_without_a_text(tmp_path, caplog):
  path = write(tmp_path / 'c.jsonl', '{"text": null}\n{"text": "x"}\n{}\n')
  with pytest.raises(UserError, match='c.jsonl:1: .*skip_without_text'):
    list(read_corpus(path))
  config = CorpusConfig(skip_without_text=True)
  assert [document.text for document in read_corpus(path, config)] == ['x']
  assert '2 rows without a text' in caplog.text


def test_zstandard_with_a_long_window(tmp_path):
  zstandard = pytest.importorskip('zstandard')
  parameters = zstandard.ZstdCompressionParameters(window_log=31, compression_level=1)
  compressor = zstandard.ZstdCompressor(compression_params=parameters)
  with open(tmp_path / 'c.jsonl.zst', 'wb') as file, compressor.stream_writer(file) as writer:
    writer.write(LINES.encode())
  assert [document.text for document in read_corpus(tmp_path / 'c.jsonl.zst')] == ['One.', 'Two.']
