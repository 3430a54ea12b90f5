"""Recall and speed of the search on the paragraphs and questions of XQuAD.

    python experiments/search_recall.py --wikipedia pages.jsonl.gz --xquad xquad.en.json.gz

Each paragraph of XQuAD becomes a page among those of an encyclopedia. A question counts as answered
at k if one of the k best passages is part of its paragraph. If the pages of the encyclopedia were
chosen for the topics of the questions, the search is harder than among others of that number; such
figures say little about the whole Wikipedia.
"""

import argparse
import gzip
import itertools
import json
import pathlib
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator

from toolformer_jax import cli
from toolformer_jax.data.pages import corpus_pages
from toolformer_jax.data.passages import Page
from toolformer_jax.errors import UserError
from toolformer_jax.tools.passage_index import PassageIndex

_DEPTHS = (1, 5)


def main() -> None:
  """Builds the index, searches for all questions, and prints recall and times."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--wikipedia', required=True, type=pathlib.Path, metavar='F')
  parser.add_argument('--xquad', required=True, type=pathlib.Path, metavar='F')
  args = parser.parse_args()
  paragraphs = list(read_paragraphs(args.xquad))
  pages = [Page(title, text) for title, text, _ in paragraphs]
  with tempfile.TemporaryDirectory() as folder:
    start = time.perf_counter()
    all_pages = itertools.chain(pages, corpus_pages(args.wikipedia))
    index = PassageIndex.build(all_pages, pathlib.Path(folder))
    print(f'{len(index)} passages; built in {time.perf_counter() - start:.1f} s')
    ranks, seconds = ask(index, paragraphs)
  for depth in _DEPTHS:
    print(f'recall@{depth} {sum(rank < depth for rank in ranks) / len(ranks):.3f}', end='  ')
  print(f'of {len(ranks)} questions; median {1000 * statistics.median(seconds):.2f} ms a query')


def read_paragraphs(path: pathlib.Path) -> Iterator[tuple[str, str, list[str]]]:
  """Yields (title, paragraph, questions) of a file in SQuAD's format, gzipped or not."""
  opened = gzip.open if path.suffix == '.gz' else open
  try:
    with opened(path, 'rt', encoding='utf-8') as file:
      articles = json.load(file)['data']
    for article in articles:
      for paragraph in article['paragraphs']:
        # On one line, as passages are, so that a passage of the paragraph is a substring of it.
        text = ' '.join(paragraph['context'].split())
        yield article.get('title', ''), text, [qa['question'] for qa in paragraph['qas']]
  except (ValueError, KeyError, TypeError, EOFError, zlib.error) as error:
    raise UserError(f'{path} is not in the format of SQuAD: {error!r}') from error


def ask(index: PassageIndex,
        paragraphs: list[tuple[str, str, list[str]]]) -> tuple[list[int], list[float]]:
  """Returns for each question the rank of its paragraph, from 0, and the seconds of each query."""
  ranks, seconds = [], []
  for _, text, questions in paragraphs:
    for question in questions:
      start = time.perf_counter()
      found = index.search(question, max(_DEPTHS))
      seconds.append(time.perf_counter() - start)
      hits = [rank for rank, passage in enumerate(found) if passage.text in text]
      ranks.append(hits[0] if hits else max(_DEPTHS))
  return ranks, seconds


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
