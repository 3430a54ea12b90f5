"""Repeats the texts whose calculations are rare among those that a run kept.

    python experiments/balanced_calls.py --runs runs/answers --output train.jsonl --dev dev.jsonl

A small model samples products far more often than quotients, whatever the problem, and learns from
its own calls to multiply even more. The texts come from annotation runs; the output files are
--data and --dev of `toolformer finetune`. Texts with a rare operation are repeated until there are
about as many as of the most frequent operation, but at most --most times. Held-out texts are
removed first, so that none of them is trained on. Texts without calls are left out.
"""

import argparse
import pathlib
import sys
from collections import Counter
from collections.abc import Sequence

from bootstrapping import operation

from toolformer_jax import cli
from toolformer_jax.data.records import AnnotatedDocument, write_records
from toolformer_jax.training.config import MixtureConfig
from toolformer_jax.training.mixture import hold_out
from toolformer_jax.training.sources import read_texts

DEV_TEXTS = 1000  # the paper's; a tenth of few texts


def main() -> None:
  """Writes both files, and prints the counts of the first."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--runs', nargs='+', required=True, metavar='D')
  for name in ('output', 'dev'):
    parser.add_argument(f'--{name}', type=pathlib.Path, required=True, metavar='F')
  parser.add_argument('--most', type=int, default=4, metavar='N')
  args = parser.parse_args()
  texts = [text for run in args.runs for text in read_texts(run) if text.calls]
  trained, held_out = hold_out(texts, MixtureConfig(dev_texts=DEV_TEXTS))
  write_records(args.output, balanced(trained, args.most))
  write_records(args.dev, held_out)
  often = times(trained, args.most)
  for name, count in Counter(map(kind, trained)).most_common():
    print(f'{name}: {count} texts, each {often[name]} times')


def balanced(texts: Sequence[AnnotatedDocument], most: int) -> list[AnnotatedDocument]:
  """Returns `texts`, each as often as its operation is rare."""
  often = times(texts, most)
  return [text for text in texts for _ in range(often[kind(text)])]


def times(texts: Sequence[AnnotatedDocument], most: int) -> dict[str, int]:
  """Returns how often a text with each operation is taken."""
  counts = Counter(map(kind, texts))
  largest = max(counts.values(), default=0)
  return {name: min(most, round(largest / count)) for name, count in counts.items()}


def kind(text: AnnotatedDocument) -> str:
  """Returns the operation of a text's first call."""
  return operation(text.calls[0].argument)


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
