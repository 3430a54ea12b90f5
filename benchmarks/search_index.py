"""Builds a search index of generated pages, and measures memory, time and queries.

    python benchmarks/search_index.py --passages 1000000 --folder /tmp/search

The pages have the statistics that matter to an index: words by Zipf's law from three million, among
them the stopwords of English as often as in English; a page comes back to words of its own; every
page has a lead and sections. Queries are drawn from the passages as people ask: some rare words of
a passage, some frequent ones. What is there already in the folder is used again; an index that was
not finished is finished.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import time

import numpy as np

from toolformer_jax.data.pages import corpus_pages
from toolformer_jax.tools.passage_index import PassageIndex
from toolformer_jax.tools.search_words import STOPWORDS

_VOCABULARY = 3_000_000
_WORDS_A_PAGE = 420  # the mean, as of Wikipedia's articles
_PASSAGES_A_PAGE = 6.3  # the mean, of these pages
_PAGES_A_BLOCK = 10_000
_SYLLABLES = [c + v for c in 'b c d f g k l m n p r s t v z ch st tr'.split() for v in 'aeiou']
_NUM_QUERIES = 1000


def main() -> None:
  """Generates, builds and asks, and prints what it took."""
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--passages', type=int, required=True, metavar='N', help='about that many')
  parser.add_argument('--folder', type=pathlib.Path, required=True, metavar='D')
  args = parser.parse_args()
  args.folder.mkdir(parents=True, exist_ok=True)
  corpus = args.folder / f'pages-{args.passages}.jsonl'
  if not corpus.exists():  # in another process, so that its memory is not counted
    writer = multiprocessing.get_context('spawn').Process(
        target=write_pages, args=(corpus, args.passages))
    writer.start()
    writer.join()
  before = gigabytes(resource.RUSAGE_CHILDREN)
  index = built_index(corpus, args.folder / f'index-{args.passages}')
  print(f'memory at most {gigabytes(resource.RUSAGE_SELF):.2f} GB')
  if (children := gigabytes(resource.RUSAGE_CHILDREN)) > before:
    print(f'and that of the largest other process {children:.2f} GB')
  report_queries(index)


def gigabytes(whose: int) -> float:
  """Returns the most memory that a process, or the largest of its children, has had."""
  return resource.getrusage(whose).ru_maxrss / 1e6


def built_index(corpus: pathlib.Path, folder: pathlib.Path) -> PassageIndex:
  """Returns the index of `corpus` in `folder`, which is built or finished if need be."""
  if (folder / 'settings.json').exists():
    return PassageIndex(folder)
  start = time.perf_counter()
  index = PassageIndex.build(corpus_pages(corpus), folder)
  seconds = time.perf_counter() - start
  size = sum(file.stat().st_size for file in folder.iterdir())
  print(f'{len(index)} passages of {corpus.stat().st_size / 1e9:.2f} GB: '
        f'index of {size / 1e9:.2f} GB in {seconds:.0f} s')
  return index


def report_queries(index: PassageIndex) -> None:
  """Prints how long queries take, the first time (files not in memory, perhaps) and again."""
  for name, queries in query_sets(index).items():
    for when in ('first', 'again'):
      times = []
      for query in queries:
        start = time.perf_counter()
        index.search(query, 5)
        times.append(1000 * (time.perf_counter() - start))
      cuts = statistics.quantiles(times, n=100)
      print(f'{name}, {when}: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, '
            f'longest {max(times):.1f} ms')


def query_sets(index: PassageIndex) -> dict[str, list[str]]:
  """Returns queries: names and things with frequent words about them, and whole sentences."""
  random = np.random.default_rng(1)
  frequent = words_by_rank()[:400].tolist()
  questions, sentences = [], []
  for number in random.integers(len(index), size=_NUM_QUERIES):
    passage = index.passage(int(number))
    words = passage.text.split()
    about = random.choice(words, min(len(words), random.integers(1, 5))).tolist()
    questions.append(' '.join([*random.choice(frequent, 6), *about, passage.title.split()[0]]))
    sentences.append(' '.join(words[:18]))
  return {'questions of 8 to 12 words': questions, 'sentences of 18 words': sentences}


def write_pages(path: pathlib.Path, num_passages: int) -> None:
  """Writes pages that make about `num_passages` passages; the file is there when it is whole."""
  num_pages = int(num_passages / _PASSAGES_A_PAGE)
  vocabulary = words_by_rank()
  unfinished = path.with_suffix('.part')
  with open(unfinished, 'w', encoding='utf-8') as file:
    for block in range(0, num_pages, _PAGES_A_BLOCK):
      random = np.random.default_rng(block)
      for number in range(block, min(block + _PAGES_A_BLOCK, num_pages)):
        file.write(json.dumps(page(random, vocabulary, number)) + '\n')
  os.replace(unfinished, path)


def words_by_rank() -> np.ndarray:
  """Returns the words by frequency: stopwords among the first, then words of syllables."""
  words = []
  for rank in range(_VOCABULARY):
    digest = hashlib.blake2b(str(rank).encode(), digest_size=8).digest()
    length = 2 + (rank > 500) + (rank > 30_000)
    words.append(''.join(_SYLLABLES[byte % len(_SYLLABLES)] for byte in digest[:length])
                 + (f'{rank:x}' if rank > 200_000 else ''))
  words[:len(STOPWORDS)] = sorted(STOPWORDS)
  return np.array(words)


def zipf_ranks(random: np.random.Generator, count: int) -> np.ndarray:
  """Returns ranks by the law of Zipf and Mandelbrot: the density is 1 / (rank + 2.7)."""
  shift = 2.7
  return (shift * (_VOCABULARY / shift + 1) ** random.random(count) - shift).astype(np.int64)


def page(random: np.random.Generator, vocabulary: np.ndarray, number: int) -> dict[str, str]:
  """Returns a page with a lead and sections; 15% of its words are of 25 that are its own."""
  count = int(random.lognormal(np.log(_WORDS_A_PAGE) - 0.5, 1)) + 20
  ranks = zipf_ranks(random, count)
  own = 1000 + zipf_ranks(random, 25) % (_VOCABULARY - 1000)
  is_own = random.random(count) < 0.15
  ranks[is_own] = random.choice(own, is_own.sum())
  words = vocabulary[ranks].tolist()
  parts = []
  for start in range(0, count, 18):
    parts.append(f'{" ".join(words[start:start + 18]).capitalize()}. ')
    if start // 18 % 12 == 11:
      parts.append(f'\n\n== {words[start].title()} ==\n\n')
    elif start // 18 % 4 == 3:
      parts.append('\n\n')
  title = ' '.join(vocabulary[own[:2]]).title()
  return {'title': f'{title} {number}', 'text': ''.join(parts)}


if __name__ == '__main__':
  main()
