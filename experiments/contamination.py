"""How much of the evaluation sets is contained in C*, or in the corpus of the search.

    python experiments/contamination.py --run D --search F --evaluation svamp=F1 nq=F2

A question is found in a text if the text contains one of its n-grams (8 words by default, in lower
case, without punctuation). Shorter questions are looked for as a whole. Files of evaluation sets
may have any format (JSON, JSON Lines, XML or text, gzipped or not): each string of at least four
words in them counts as a question or a sentence of one.
"""

import argparse
import gzip
import json
import pathlib
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from toolformer_jax import cli
from toolformer_jax.data.pages import corpus_pages
from toolformer_jax.errors import UserError
from toolformer_jax.training.sources import read_texts

_WORD = re.compile(r'\w+')
_TAG = re.compile(r'<[^>]*>')
_LEAST_WORDS = 4


def main() -> None:
  """Prints a table with a line for each evaluation set."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--run', type=pathlib.Path, metavar='D', help='output folder of annotate')
  parser.add_argument('--search', type=pathlib.Path, metavar='F', help='corpus of the search')
  parser.add_argument('--evaluation', nargs='+', required=True, metavar='NAME=F', type=pair)
  parser.add_argument('--words', type=int, default=8, metavar='N')
  args = parser.parse_args()
  sets = {name: list(runs_of_set(path, args.words)) for name, path in args.evaluation}
  wanted = {run for questions in sets.values() for runs in questions for run in runs}
  sources = {}
  if args.run:
    sources['C*'] = annotated_texts(args.run)
  if args.search:
    sources['search'] = (page.text for page in corpus_pages(args.search))
  found = {source: runs_in(texts, wanted) for source, texts in sources.items()}
  print(f'| set | texts | {" | ".join(f"in {source}" for source in found)} |')
  print('| --- ' * (2 + len(found)) + '|')
  for name, questions in sets.items():
    counts = [sum(not runs.isdisjoint(found[source]) for runs in questions) for source in found]
    shares = (f'{count} ({count / max(len(questions), 1):.1%})' for count in counts)
    print(f'| {name} | {len(questions)} | {" | ".join(shares)} |')


def pair(text: str) -> tuple[str, pathlib.Path]:
  """Reads `NAME=F`."""
  name, equals, path = text.partition('=')
  if not equals:
    raise argparse.ArgumentTypeError(f'{text!r} is not of the form NAME=F')
  return name, pathlib.Path(path)


def runs_of_set(path: pathlib.Path, words: int) -> Iterator[set[str]]:
  """Yields for each text of an evaluation set its runs of words."""
  for text in dict.fromkeys(strings(path)):
    found = list(runs(text, words, whole=True))
    if found:
      yield set(found)


def strings(path: pathlib.Path) -> Iterator[str]:
  """Yields the strings in a file: of JSON its values, else its lines without tags."""
  try:
    with (gzip.open if path.suffix == '.gz' else open)(path, 'rt', encoding='utf-8') as file:
      text = file.read()
  except (UnicodeDecodeError, EOFError, zlib.error) as error:
    raise UserError(f'cannot read {path}: {error}') from error
  try:
    yield from values(json.loads(text))
    return
  except ValueError:
    pass
  for line in text.splitlines():
    try:
      yield from values(json.loads(line))
    except ValueError:
      yield _TAG.sub(' ', line)


def values(value: Any) -> Iterator[str]:
  """Yields the strings in a JSON value."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, list | dict):
    for inner in value if isinstance(value, list) else value.values():
      yield from values(inner)


def runs(text: str, words: int, whole: bool) -> Iterator[str]:
  """Yields the runs of `words` words of `text`; with `whole`, all of a shorter text as one."""
  split = _WORD.findall(text.lower())
  if whole and _LEAST_WORDS <= len(split) < words:
    yield ' '.join(split)
  for at in range(len(split) - words + 1):
    yield ' '.join(split[at:at + words])


def runs_in(texts: Iterable[str], wanted: set[str]) -> set[str]:
  """Returns which of `wanted` stand in `texts`."""
  sizes, found = sorted({run.count(' ') + 1 for run in wanted}), set()
  for text in texts:
    for size in sizes:
      found.update(run for run in runs(text, size, whole=False) if run in wanted)
  return found


def annotated_texts(run: pathlib.Path) -> Iterator[str]:
  """Yields the texts of C*, with the results of their calls."""
  for record in read_texts(str(run)):
    yield record.document.text
    yield from (call.result or '' for call in record.calls)


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
