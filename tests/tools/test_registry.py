"""Tools by their names on the command line; the search keeps its index."""

import bz2
import gzip
import json

import pytest

from toolformer_jax.data import catalogue as fetch
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.tasks import TASKS
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.passage_index import PassageIndex, SearchConfig, passage_index
from toolformer_jax.tools.registry import (
  CustomToolsConfig,
  MtConfig,
  QaConfig,
  Toolbox,
  build_tools,
)
from toolformer_jax.tools.wikisearch import WikiSearch

PAGES = [
  {'title': 'Ghana', 'text': 'Ghana is a country in Africa.\n\nThe capital of Ghana is Accra.'},
  {'title': 'Peru', 'text': 'Peru is a country in America. The capital of Peru is Lima.'},
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


@pytest.fixture
def corpus(tmp_path):
  path = tmp_path / 'pages.jsonl'
  path.write_text(''.join(json.dumps(page) + '\n' for page in PAGES))
  return path


def wikipedia_search(settings):
  return WikiSearch(passage_index(settings), settings.snippet_words)


@pytest.fixture
def never_build(monkeypatch):
  """From where it is called, every index has to come from the cache."""
  def forbid():
    def build(*args, **settings):
      raise AssertionError('built again')
    monkeypatch.setattr(PassageIndex, 'build', build)
  return forbid


def test_names_give_the_tools_in_order_and_only_what_is_named_is_built(corpus, cache):
  tools = Toolbox(SearchConfig(str(corpus))).build(['CALENDAR', 'calculator', ''])
  assert [tool.name for tool in tools] == ['Calendar', 'Calculator']
  assert not cache.exists()
  search, = Toolbox(SearchConfig(str(corpus))).build(['WikiSearch'])
  assert search('capital of Peru', Context()).startswith('Peru > ')


@pytest.mark.parametrize('names, message', [
  (['calculater'], "unknown tool 'calculater': did you mean calculator"),
  ([], 'no tool is named; choose from calculator, calendar, mt, qa, wikisearch'),
  (['', ' '], 'no tool is named'),
])
def test_unknown_and_missing_names_are_errors(names, message):
  with pytest.raises(UserError, match=message):
    Toolbox().build(names)


def test_second_start_reads_the_index_and_answers_the_same(corpus, never_build):
  first = wikipedia_search(SearchConfig(str(corpus)))
  never_build()
  second = wikipedia_search(SearchConfig(str(corpus)))
  assert second.version == first.version
  for query in ('capital Accra', 'America', 'country'):
    assert second(query, Context()) == first(query, Context())


def test_index_follows_content_not_name(corpus, tmp_path, never_build):
  first = wikipedia_search(SearchConfig(str(corpus)))
  corpus.rename(tmp_path / 'moved.jsonl')
  never_build()
  assert wikipedia_search(SearchConfig(str(tmp_path / 'moved.jsonl'))).version == first.version


def test_other_pages_or_settings_are_another_index(corpus):
  first = wikipedia_search(SearchConfig(str(corpus)))
  assert wikipedia_search(SearchConfig(str(corpus), snippet_words=5)).version != first.version
  corpus.write_text(json.dumps({'title': 'Chad', 'text': 'Its capital is N’Djamena.'}))
  assert wikipedia_search(SearchConfig(str(corpus)))('capital', Context()).startswith('Chad')


def test_damaged_index_is_built_again_and_nothing_is_left_over(corpus, cache):
  answer = wikipedia_search(SearchConfig(str(corpus)))('capital Accra', Context())
  index, = (path for path in (cache / 'search').iterdir() if path.suffix != '.lock')
  (index / 'passages.jsonl').write_text('')
  again = wikipedia_search(SearchConfig(str(corpus)))
  assert again('capital Accra', Context()) == answer
  assert [path for path in (cache / 'search').iterdir() if path.suffix != '.lock'] == [index]


def test_compressed_pages_and_dumps_are_read(corpus, tmp_path):
  packed = tmp_path / 'pages.jsonl.gz'
  packed.write_bytes(gzip.compress(corpus.read_bytes()))
  assert 'Accra' in wikipedia_search(SearchConfig(str(packed)))('Ghana capital', Context())
  dump = tmp_path / 'pages.xml.bz2'
  dump.write_bytes(bz2.compress(
    b'<mediawiki xmlns="x"><page><title>Togo</title><ns>0</ns><revision><text>'
    b'The capital of Togo is Lom\xc3\xa9.</text></revision></page></mediawiki>'
  ))
  assert 'Lomé' in wikipedia_search(SearchConfig(str(dump)))('Togo capital', Context())


def test_pages_of_kilt_are_read_with_their_sections(tmp_path):
  page = {'wikipedia_id': '3', 'wikipedia_title': 'Ghana', 'text': [
      'Ghana\n', 'Ghana lies in Africa.\n', 'Section::::History.St. Louis.\n',
      'It was rich in gold.\n', 'BULLET::::- Accra is the capital.\n']}
  (tmp_path / 'kilt.jsonl').write_text(json.dumps(page) + '\n')
  found = wikipedia_search(SearchConfig(str(tmp_path / 'kilt.jsonl')))
  assert found('Africa', Context()) == 'Ghana > Ghana lies in Africa.'
  assert found('gold', Context()) == (
      'Ghana > St. Louis > It was rich in gold. - Accra is the capital.')


@pytest.mark.parametrize('line, message', [
  ('{"title": "Ghana"}', r'pages.jsonl:3: a page needs the fields `title` and `text`'),
  ('{"title": 5, "text": "a"}', r'pages.jsonl:3: a page needs'),
  ('not json', r'pages.jsonl:3: not JSON'),
])
def test_broken_pages_are_errors_with_their_line(line, message, corpus, cache):
  corpus.write_text(f'{corpus.read_text()}{line}\n')
  with pytest.raises(UserError, match=message):
    wikipedia_search(SearchConfig(str(corpus)))
  assert not [path for path in (cache / 'search').iterdir() if path.suffix != '.lock']


def test_missing_corpora_are_errors(tmp_path):
  with pytest.raises(UserError, match='did you mean wikipedia-sample'):
    wikipedia_search(SearchConfig('wikipedia-smaple'))
  with pytest.raises(UserError, match='there is no file'):
    wikipedia_search(SearchConfig(str(tmp_path / 'pages.jsonl')))
  (tmp_path / 'empty.jsonl').write_text('')
  with pytest.raises(UserError, match='nothing to search'):
    wikipedia_search(SearchConfig(str(tmp_path / 'empty.jsonl')))


def test_cache_that_can_not_be_written_is_an_error(corpus, cache):
  cache.write_text('a file, not a directory')
  with pytest.raises(UserError, match='cannot write the cache.*TOOLFORMER_CACHE'):
    wikipedia_search(SearchConfig(str(corpus)))


def test_default_corpus_is_one_that_fetch_knows():
  assert fetch.CATALOGUE[SearchConfig().corpus].kind == 'corpus'


def test_a_version_reads_only_what_the_tool_needs(cache, tmp_path):
  toolbox = Toolbox(SearchConfig(str(tmp_path / 'missing.jsonl')), QaConfig('missing', passages=0))
  assert toolbox.version('Calculator') == toolbox.build(['Calculator'])[0].version
  with pytest.raises(UserError, match='missing'):
    toolbox.version('WikiSearch')
  assert not cache.exists()


def test_no_model_is_loaded_to_see_what_is_available():
  toolbox = Toolbox(mt=MtConfig('few_shot', checkpoint='missing'))
  assert 'MT' in toolbox.available()
  with pytest.raises(UserError, match='missing'):
    toolbox.build(['MT'])


def test_a_function_is_a_tool_in_a_replay_too(tmp_path):
  def shout(argument: str) -> str:
    return argument.upper()
  path = tmp_path / 'calls.sqlite'
  store = CallStore(path)
  recorded, = build_tools([shout], Toolbox(), store)
  store.close()
  replay = CallStore(path, replay=True)
  replayed, = build_tools([shout], Toolbox(), replay)
  assert replayed.name == recorded.name
  replay.close()


def test_an_own_tool_takes_the_place_of_the_paper_s(tmp_path, monkeypatch):
  (tmp_path / 'atlas.py').write_text('def answer(question):\n  return "Accra"\n')
  monkeypatch.chdir(tmp_path)
  own = Toolbox(custom=CustomToolsConfig(functions={'QA': 'atlas:answer'}))
  tool, = own.build(['qa'])
  assert tool.name == 'QA' and tool('anything', Context()) == 'Accra'
  assert own.version('QA') == tool.version
  assert list(own.names()).count('qa') == 1 and own.names()['qa'] == 'QA'
  assert 'QA' in TASKS['webquestions'].without_tools
  with pytest.raises(UserError, match="'qa' is spelled 'QA' if it takes the place"):
    CustomToolsConfig(functions={'qa': 'atlas:answer'})
