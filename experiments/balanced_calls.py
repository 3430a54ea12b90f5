"""Balances training texts by the operation of their calculator calls.

    python experiments/balanced_calls.py --runs runs/answers --output train.jsonl --dev dev.jsonl

A small model proposes products far more often than quotients, whatever the problem is; training on
such calls makes it multiply even more. The script reads annotation runs and writes the --data and
--dev files of `toolformer finetune`. A text is repeated until its operation is about as frequent as
the most frequent one, but at most --max_repeats times. Dev texts are held out first, so that none
of them is trained on. Texts without calls are left out.
"""

import argparse
import pathlib
import re
import sys
from collections import Counter
from collections.abc import Sequence

from toolformer_jax import cli
from toolformer_jax.data.records import AnnotatedDocument, write_records
from toolformer_jax.training.config import MixtureConfig
from toolformer_jax.training.mixture import hold_out
from toolformer_jax.training.sources import read_texts

_OPERATOR = re.compile(r'(?<=[\d)]) *([-+*/])')
DEV_TEXTS = 1000  # as in the paper; of fewer than 10,000 texts, a tenth


def main() -> None:
  """Writes both files, and prints the number of texts of each operation."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--runs', nargs='+', required=True, metavar='D')
  for name in ('output', 'dev'):
    parser.add_argument(f'--{name}', type=pathlib.Path, required=True, metavar='F')
  parser.add_argument('--max_repeats', type=int, default=4, metavar='N')
  args = parser.parse_args()
  texts = [text for run in args.runs for text in read_texts(run) if text.calls]
  trained, held_out = hold_out(texts, MixtureConfig(dev_texts=DEV_TEXTS))
  write_records(args.output, balanced(trained, args.max_repeats))
  write_records(args.dev, held_out)
  repeats = repeats_of(trained, args.max_repeats)
  for name, count in Counter(map(operation_of, trained)).most_common():
    print(f'{name}: {count} texts, each {repeats[name]} times')


def balanced(texts: Sequence[AnnotatedDocument], max_repeats: int) -> list[AnnotatedDocument]:
  """Returns `texts`, those of rare operations repeated."""
  repeats = repeats_of(texts, max_repeats)
  return [text for text in texts for _ in range(repeats[operation_of(text)])]


def repeats_of(texts: Sequence[AnnotatedDocument], max_repeats: int) -> dict[str, int]:
  """Returns how many times a text of each operation is taken."""
  counts = Counter(map(operation_of, texts))
  largest = max(counts.values(), default=0)
  return {name: min(max_repeats, round(largest / count)) for name, count in counts.items()}


def operation_of(text: AnnotatedDocument) -> str:
  """Returns the operation of a text's first call."""
  return operation(text.calls[0].argument)


def operation(argument: str) -> str:
  """Returns the one operator of an expression, `several`, or `other` where there is none."""
  operators = set(_OPERATOR.findall(argument))
  return 'several' if len(operators) > 1 else next(iter(operators), 'other')


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
