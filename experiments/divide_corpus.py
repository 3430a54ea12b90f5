"""Holds out documents of a corpus: 1,000 to choose checkpoints by, and 10,000 for perplexities.

    python experiments/divide_corpus.py --corpus F --output_dir D

Then annotate D/train.jsonl, fine-tune with --dev D/dev.jsonl, and evaluate the task `corpus` with
--data_dir D, whose file is D/corpus/test.jsonl (paper, section 4.3 and appendix B).
"""

import argparse
import pathlib
import sys

from toolformer_jax import cli
from toolformer_jax.commands import options
from toolformer_jax.data.corpus import check_corpus, read_corpus
from toolformer_jax.data.corpus_parts import divide_corpus
from toolformer_jax.runtime.output_dir import check_output_dir


def main() -> None:
  """Writes the three files and prints how many documents each has."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  options.add_corpus(parser)
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='D')
  for name, count in (('dev', 1000), ('test', 10_000)):
    parser.add_argument(f'--{name}_texts', type=int, default=count, metavar='N',
                        help='documents to hold out (default: %(default)s)')
  parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the choice')
  options.add_configuration(parser)
  args = cli.parse(parser, sys.argv[1:])
  config = options.configuration(args)
  check_output_dir(args.output_dir)
  check_corpus(args.corpus)
  counts = divide_corpus(
      lambda: read_corpus(args.corpus, config.corpus, config.toolbox.media), args.output_dir,
      dev=args.dev_texts, test=args.test_texts, seed=args.seed)
  for name, count in counts.items():
    print(f'{args.output_dir / name}: {count:,} documents')


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
