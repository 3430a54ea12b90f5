"""Chooses texts of web posts for a small annotation run.

    python experiments/web_posts.py --posts posts.jsonl.gz --texts 200 --every 30 --output F
    python experiments/web_posts.py --posts posts.jsonl.gz --posts_taken 10 --words 60 \\
        --every 200 --output F

The first command takes whole posts in order, up to the given number of texts after splitting. The
second takes the first words of a number of posts. Both corpora were annotated with all five tools:

    toolformer annotate --corpus F --tools calculator,calendar,wikisearch,mt,qa \\
        --checkpoint smollm2-135m --gin_file quickstart.gin --output_dir D \\
        "--gin.SearchConfig.corpus='pages.jsonl.gz'"
"""

import argparse
import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator

from toolformer_jax import cli
from toolformer_jax.annotation.config import AnnotationConfig
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.data.catalogue import fetch
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.records import Document, write_records
from toolformer_jax.data.split import split_document


def main() -> None:
  """Writes the chosen posts."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--posts', required=True, metavar='F')
  parser.add_argument('--every', type=int, default=1, metavar='N', help='look at every N-th post')
  parser.add_argument('--output', required=True, type=pathlib.Path, metavar='F')
  parser.add_argument('--texts', type=int, metavar='N', help='texts after splitting')
  parser.add_argument('--posts_taken', type=int, metavar='N')
  parser.add_argument('--words', type=int, metavar='N', help='of the beginning of each')
  args = parser.parse_args()
  posts = itertools.islice(read_corpus(args.posts), 0, None, args.every)
  if args.words:
    posts = (first_words(post, args.words) for post in posts)
  if args.texts:
    posts = filling(posts, args.texts)
  write_records(args.output, itertools.islice(posts, args.posts_taken))


def first_words(post: Document, words: int) -> Document:
  """Returns the beginning of a post."""
  return dataclasses.replace(post, text=' '.join(post.text.split()[:words]))


def filling(posts: Iterable[Document], texts: int) -> Iterator[Document]:
  """Yields posts that make up `texts` texts once they are split; one that is too long is left."""
  encode = GgufFile(fetch('smollm2-135m')).tokenizer().encode
  for post in posts:
    pieces = len(split_document(post, encode, AnnotationConfig().max_text_tokens))
    if pieces <= texts:
      texts -= pieces
      yield post
    if not texts:
      return


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
