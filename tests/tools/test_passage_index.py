"""The index of many passages finds what bm25s finds, and survives kills."""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from toolformer_jax.data.pages import corpus_pages
from toolformer_jax.data.passages import Page, split_passages
from toolformer_jax.errors import UserError
from toolformer_jax.tools import index_merge, index_parts
from toolformer_jax.tools.index_merge import K1, B
from toolformer_jax.tools.passage_index import PassageIndex
from toolformer_jax.tools.search_words import STOPWORDS, WORD, fold, stems, word_hashes

NAMES = ('passages.jsonl', 'lines.i64', 'words.u64', 'starts.i64', 'passages.u32', 'scores.f32',
         'bounds.f32', 'settings.json')


def zipf_pages(count, seed=0):
  """Pages of words by Zipf's law, so that lists are long and short, with accents among them."""
  random = np.random.default_rng(seed)
  pages = []
  for number in range(count):
    ranks = np.minimum(random.zipf(1.3, 300), 3000)
    words = [f'wörd{rank}' if rank % 7 == 0 else f'the word{rank}s' for rank in ranks]
    pages.append(Page(f'Page {number}', '. '.join(' '.join(words[at:at + 15]).capitalize()
                                                  for at in range(0, 300, 15)) + '.'))
  return pages


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(index_parts, '_CHARACTERS', 50_000)
  monkeypatch.setattr(index_merge, '_POSTINGS_AT_ONCE', 1000)
  monkeypatch.setattr(index_merge, '_PARTS_AT_ONCE', 2)


def reference(pages):
  """bm25s over the same passages, and its tokens of a query."""
  bm25s, stemmer = pytest.importorskip('bm25s'), pytest.importorskip('Stemmer').Stemmer('english')
  def tokenize(texts):
    return bm25s.tokenize([fold(text) for text in texts], token_pattern=WORD.pattern,
                          stopwords='english', stemmer=stemmer, show_progress=False,
                          return_ids=False)
  passages = split_passages(pages)
  index = bm25s.BM25(k1=K1, b=B)
  index.index(tokenize([f'{one.title} {one.section} {one.text}' for one in passages]),
              show_progress=False)
  return index, tokenize


def compare_with_bm25s(pages, queries, directory):
  index = PassageIndex.build(pages, directory)
  theirs, tokenize = reference(pages)
  for query, tokens in zip(queries, tokenize(queries), strict=True):
    assert stems(query) == tokens
    if not tokens:  # bm25s refuses it
      assert not index.search(query, 10)
      continue
    scores = theirs.get_scores(tokens)
    expected = np.lexsort((np.arange(len(scores)), -scores))[:10]
    expected = expected[scores[expected] > 0]
    found, found_scores = index._postings.best(word_hashes(tokens), 10)
    assert found.tolist() == expected.tolist(), query
    assert found_scores.tobytes() == scores[expected].tobytes(), query  # equal to the bit


def test_passages_and_scores_are_those_of_bm25s(tmp_path):
  random, pages = np.random.default_rng(1), zipf_pages(120)
  vocabulary = sorted({word for page in pages for word in page.text.split()})
  queries = [' '.join(random.choice(vocabulary, random.integers(1, 12))) for _ in range(300)]
  queries += ['word1 word1 word1 word2', 'word1s wörd7', 'nowhere word9', 'page']
  compare_with_bm25s(pages, queries, tmp_path)


def test_real_pages_give_what_bm25s_gives(tmp_path, data_dir):
  corpus, = (data_dir / 'wikipedia').glob('*.jsonl*')
  pages = list(itertools.islice(corpus_pages(corpus), 300))
  queries = [page.text[:200].split('. ')[0] for page in pages]
  queries += [f'Who was the first {page.title} of the world?' for page in pages]
  compare_with_bm25s(pages, queries, tmp_path)


def test_stopwords_are_those_of_the_baselines():
  bm25s = pytest.importorskip('bm25s.stopwords')
  assert STOPWORDS == set(bm25s.STOPWORDS_EN)


def test_excluding_a_long_page_leaves_the_best_of_the_others(tmp_path):
  long = Page('Reel', '\n\n'.join(f'== S{n} ==\nReel reel reel.' for n in range(50)))
  index = PassageIndex.build([long, Page('Film', 'A film is on a reel.')], tmp_path)
  assert {passage.title for passage in index.search('reel', 5)} == {'Reel'}
  assert [passage.title for passage in index.search('reel', 5, 'REEL')] == ['Film']


def files_of(directory):
  assert sorted(file.name for file in directory.iterdir()) == sorted(NAMES)
  return {name: (directory / name).read_bytes() for name in NAMES}


def test_processes_and_interruptions_change_no_byte(tmp_path):
  pages = zipf_pages(80)
  PassageIndex.build(pages, tmp_path / 'one', processes=1)
  PassageIndex.build(pages, tmp_path / 'two', processes=2)

  def failing():
    yield from pages[:60]
    raise KeyboardInterrupt
  with pytest.raises(KeyboardInterrupt):
    PassageIndex.build(failing(), tmp_path / 'resumed', processes=1)
  with pytest.raises(UserError, match='no search index'):
    PassageIndex(tmp_path / 'resumed')
  whole = sorted((tmp_path / 'resumed' / 'parts').iterdir())
  times = [path.stat().st_mtime_ns for path in whole]
  assert len(whole) >= 2
  (tmp_path / 'resumed' / 'parts' / '000009.unfinished').mkdir()
  written = []
  original = index_parts.write_part
  index_parts.write_part = lambda job, **settings: (
      written.append(job[1]), original(job, **settings))
  try:
    PassageIndex.build(pages, tmp_path / 'resumed', processes=1)
  finally:
    index_parts.write_part = original
  assert written and not set(written) & set(whole) and times
  assert files_of(tmp_path / 'one') == files_of(tmp_path / 'two') == files_of(tmp_path / 'resumed')


KILLED = '''
import pathlib, sys
sys.path.insert(0, {tests!r})
from test_passage_index import PassageIndex, index_parts, zipf_pages
index_parts._CHARACTERS = 50_000
PassageIndex.build(zipf_pages(200), pathlib.Path({directory!r}), processes=2)
'''


def test_a_killed_build_goes_on_and_leaves_no_process(tmp_path):
  directory, script = tmp_path / 'index', tmp_path / 'script.py'
  script.write_text(KILLED.format(tests=str(pathlib.Path(__file__).parent),
                                  directory=str(directory)))
  command = [sys.executable, str(script)]
  environment = {**os.environ, 'PYTHONPATH': os.getcwd()}
  running = subprocess.Popen(command, env=environment, start_new_session=True)
  while len(list(directory.glob('parts/??????'))) < 2:
    assert running.poll() is None
    time.sleep(0.01)
  running.send_signal(signal.SIGKILL)  # the process alone, not its workers
  running.wait()
  deadline = time.monotonic() + 20
  while in_session(running.pid):
    assert time.monotonic() < deadline, 'a worker outlives its parent'
    time.sleep(0.05)
  subprocess.run(command, env=environment, check=True, timeout=120)
  PassageIndex.build(zipf_pages(200), tmp_path / 'at_once', processes=1)
  assert files_of(directory) == files_of(tmp_path / 'at_once')


def in_session(session):
  found = subprocess.run(['ps', '-s', str(session), '-o', 'pid='], capture_output=True, text=True)
  return found.stdout.split()
