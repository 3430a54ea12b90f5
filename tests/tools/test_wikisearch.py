"""The search finds what BM25 finds, cites it as the paper does, and never the page itself."""

import itertools
import math
import pathlib
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer_jax.data.passages import Page, Passage, split_passages, split_sentences
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.index_merge import K1, B
from toolformer_jax.tools.passage_index import PassageIndex
from toolformer_jax.tools.wikisearch import WikiSearch, best_snippet

# Words that are their own stems and no stopwords.
WORDS = ['reel', 'fish', 'salmon', 'trout', 'Ghana', 'flag', 'red', 'gold']

words = st.sampled_from(WORDS)
sentences = st.lists(words, min_size=1, max_size=12).map(lambda ws: f'{" ".join(ws)}.'.capitalize())
paragraphs = st.lists(sentences, min_size=1, max_size=4).map(' '.join)
bodies = st.lists(paragraphs, max_size=4).map('\n\n'.join)
pages = st.builds(
  lambda title, lead, sections: Page(
    title, '\n'.join([lead, *(f'\n== {name} ==\n{body}' for name, body in sections)])
  ),
  words, bodies, st.lists(st.tuples(words, bodies), max_size=3),
)

FLAG = Page(
  'Flag of Ghana',
  'The flag of Ghana was adopted in 1957. It replaced an older flag.\n\n'
  'Theodosia Okoh designed it.\n\n'
  '== Colours ==\n'
  'The golden stripe is for the mineral wealth of the country. '
  'The red stripe stands for the blood of martyrs.\n\n'
  '=== In other flags ===\nOther countries use the same colours.',
)
FISHING = Page('Fishing reel', 'A reel winds line. A spinning reel is mounted below the rod.')


FOLDER = tempfile.TemporaryDirectory()
NUMBERS = itertools.count()


def index_of(pages, passage_words=100, processes=1):
  directory = pathlib.Path(FOLDER.name, str(next(NUMBERS)))
  return PassageIndex.build(pages, directory, passage_words, processes)


def build(pages, passage_words=100, snippet_words=40):
  return WikiSearch(index_of(pages, passage_words), snippet_words)


def search(query, title=None, built=None):
  return (built or build([FLAG, FISHING]))(query, Context(title=title))


@given(st.lists(pages, max_size=4), st.integers(1, 30))
def test_passages_hold_every_word_once_in_order_and_within_the_limit(some_pages, limit):
  passages = split_passages(some_pages, limit)
  lines = '\n'.join(page.text for page in some_pages).splitlines()
  body = ' '.join(line for line in lines if not line.startswith('='))
  assert ' '.join(passage.text for passage in passages).split() == body.split()
  assert all(1 <= len(passage.text.split()) <= limit for passage in passages)


@given(pages, st.integers(1, 30))
def test_neighbours_in_a_section_end_at_a_sentence_if_sentences_fit(page, limit):
  if any(len(sentence.split()) > limit for sentence in split_sentences(page.text)):
    limit = 100
  assert all(passage.text.endswith('.') for passage in split_passages([page], limit))


def test_passages_stay_in_their_section_and_merge_short_paragraphs():
  assert split_passages([FLAG]) == [
    Passage('Flag of Ghana', '', 'The flag of Ghana was adopted in 1957. It replaced an older '
            'flag. Theodosia Okoh designed it.'),
    Passage('Flag of Ghana', 'Colours', 'The golden stripe is for the mineral wealth of the '
            'country. The red stripe stands for the blood of martyrs.'),
    Passage('Flag of Ghana', 'In other flags', 'Other countries use the same colours.'),
  ]


@pytest.mark.parametrize('limit, expected', [
  (6, ['One two. Three four. Five six.']),
  (5, ['One two.', 'Three four. Five six.']),
  (3, ['One two.', 'Three four.', 'Five six.']),
  (1, ['One', 'two.', 'Three', 'four.', 'Five', 'six.']),
])
def test_passages_are_as_long_as_the_limit_allows(limit, expected):
  page = Page('Numbers', 'One two.\n\nThree four. Five six.')
  assert [passage.text for passage in split_passages([page], limit)] == expected


@pytest.mark.parametrize('text, expected', [
  ('One. Two! Three? Four', ['One.', 'Two!', 'Three?', 'Four']),
  ('It is 3.5 m long. Then', ['It is 3.5 m long.', 'Then']),
  ('Mr. Smith met J. R. Jones. They spoke.', ['Mr. Smith met J. R. Jones.', 'They spoke.']),
  ('He said "no." Then he left.[1][2] She stayed.',
   ['He said "no."', 'Then he left.[1][2]', 'She stayed.']),
  ('', []),
])
def test_sentences(text, expected):
  assert split_sentences(text) == expected


def bm25(query, texts):
  """The scores of `texts` by the formula of Lucene's BM25."""
  bags = [Counter(text.lower().replace('.', '').split()) for text in texts]
  mean = sum(bag.total() for bag in bags) / len(bags)

  def score(bag, term):
    holders = sum(term in other for other in bags)
    idf = math.log(1 + (len(bags) - holders + 0.5) / (holders + 0.5))
    return idf * bag[term] / (bag[term] + K1 * (1 - B + B * bag.total() / mean))

  return [sum(score(bag, term) for term in query.lower().split()) for bag in bags]


@given(st.lists(paragraphs, min_size=1, max_size=6), st.lists(words, min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_the_first_best_passage_by_bm25_is_the_answer(texts, query):
  query = ' '.join(query)
  numbered = [Page(f'P{number}', text) for number, text in enumerate(texts)]
  scores = bm25(query, [f'p{number} {text}' for number, text in enumerate(texts)])
  if not max(scores):
    with pytest.raises(ToolError, match='no page matches'):
      search(query, built=build(numbered))
    return
  answer = search(query, built=build(numbered))
  chosen = int(answer.partition(' > ')[0].removeprefix('P'))
  assert scores[chosen] == pytest.approx(max(scores), rel=1e-5)
  assert texts.index(texts[chosen]) == chosen


def test_of_equal_passages_the_first_one_counts():
  built = build([FLAG, *(Page(f'Reel {letter}', 'It winds.') for letter in 'XYZ')])
  assert search('reel', built=built) == 'Reel X > It winds.'


@pytest.mark.parametrize('query, answer', [
  ('"meaning of the red stripes"',
   'Flag of Ghana > Colours > The red stripe stands for the blood of martyrs.'),
  ('Okoh', 'Flag of Ghana > Theodosia Okoh designed it.'),
  ('spinning reels', 'Fishing reel > A spinning reel is mounted below the rod.'),
])
def test_answers_are_title_section_and_the_matching_sentence(query, answer):
  assert search(query) == answer


@pytest.mark.parametrize('query, reason', [
  ('', 'nothing to search for'),
  ('" "', 'nothing to search for'),
  ('?!', 'nothing to search for'),
  ('it is the', 'nothing to search for'),
  ('zeppelin', 'no page matches'),
])
def test_nothing_found_is_a_tool_error(query, reason):
  with pytest.raises(ToolError, match=f'^{reason}$'):
    search(query)


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_any_query_gives_an_answer_or_a_tool_error(query):
  try:
    assert ' > ' in search(query, built=SMALL)
  except ToolError as error:
    assert str(error) in ('nothing to search for', 'no page matches')


SMALL = build([FLAG, FISHING])


@pytest.mark.parametrize('title', ['Flag of Ghana', 'FLAG OF GHANA', 'flag of ghana'])
def test_the_page_itself_is_never_the_answer(title):
  other = Page('Africa', 'Many a flag here has red, gold and green, that of Ghana too.')
  built = build([FLAG, FISHING, other])
  assert search('flag of Ghana', built=built).startswith('Flag of Ghana')
  assert search('flag of Ghana', title, built).startswith('Africa')
  with pytest.raises(ToolError, match='no page matches'):
    search('martyrs', title, built)


@given(paragraphs, st.lists(words, max_size=3), st.integers(1, 40))
def test_a_snippet_is_a_run_of_words_within_the_limit(text, query, limit):
  snippet = best_snippet(text, query, limit)
  assert 1 <= len(snippet.split()) <= limit
  assert f' {snippet} ' in f' {text} '


def test_a_snippet_goes_on_with_whole_sentences_while_they_fit():
  text = 'One two. Red three four. Five six. Seven eight nine.'
  assert best_snippet(text, ['red'], 5) == 'Red three four. Five six.'
  assert best_snippet(text, ['red'], 7) == 'Red three four. Five six.'
  assert best_snippet(text, ['red'], 8) == 'Red three four. Five six. Seven eight nine.'
  assert best_snippet(text, ['red'], 2) == 'Red three'


def test_version_tells_pages_and_settings_apart():
  versions = {
    SMALL.version,
    build([FLAG]).version,
    build([FISHING, FLAG]).version,
    build([FLAG, FISHING], passage_words=10).version,
    build([FLAG, FISHING], snippet_words=10).version,
  }
  assert len(versions) == 5
  assert build([FLAG, FISHING]).version == SMALL.version


@pytest.mark.parametrize('name', [
  'passages.jsonl', 'lines.i64', 'words.u64', 'starts.i64', 'passages.u32', 'scores.f32',
  'bounds.f32'])
def test_truncated_files_are_refused_by_name(tmp_path, name):
  PassageIndex.build([FLAG, FISHING], tmp_path)
  whole = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(whole[:-1])
  with pytest.raises(UserError, match=f'{name} is not the file that was saved.*build it again'):
    PassageIndex(tmp_path)
  (tmp_path / name).unlink()
  with pytest.raises(UserError, match='build it again'):
    PassageIndex(tmp_path)


def test_damaged_settings_are_refused(tmp_path):
  PassageIndex.build([FLAG, FISHING], tmp_path)
  (tmp_path / 'settings.json').write_text('{"half', encoding='utf-8')
  with pytest.raises(UserError, match='no search index in'):
    PassageIndex(tmp_path)


def test_missing_index_and_wordless_pages_are_user_errors(tmp_path):
  with pytest.raises(UserError, match='no search index in'):
    PassageIndex(tmp_path / 'nowhere')
  for nothing in ([], [Page('A', '')], [Page('The', 'and of the.')]):
    with pytest.raises(UserError, match='nothing to search'):
      build(nothing)


def test_threads_get_the_same_answers():
  queries = ['red stripes', 'spinning reels', 'Ghana flags', 'mineral wealth'] * 50
  with ThreadPoolExecutor(8) as threads:
    concurrent = list(threads.map(lambda query: search(query, built=SMALL), queries))
  assert concurrent == [search(query, built=SMALL) for query in queries]


def test_importing_the_tool_does_not_start_jax():
  program = 'import sys, toolformer_jax.tools.wikisearch; sys.exit("jax" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', program], timeout=60).returncode == 0


@pytest.mark.parametrize('query', ['cafe', 'Café', 'CAFE\u0301', 'ＣＡＦＥ'])
@pytest.mark.parametrize('word', ['café', 'cafe', 'cafe\u0301'])
def test_accents_make_no_difference(word, query):
  index = index_of([FLAG, Page('Coffee', f'Coffee is served in a {word} in Łódź.')])
  assert [passage.title for passage in index.search(query, 1)] == ['Coffee']
  assert [passage.title for passage in index.search('Lodz', 1)] == ['Coffee']
  assert not index.search(query, 1, exclude_title='COFFEE')
