"""Rounds of annotating and fine-tuning; each samples calls from the model of the round before.

    python experiments/bootstrapping.py --gin_file answers.gin --corpus F --tools calculator \\
        --checkpoint smollm2-135m --tasks svamp --data_dir D --rounds 3 --texts 480 --limit 200

The paper suggests this because few calls to the calculator are found (section 7). A round annotates
the next TEXTS texts of the corpus, the first round with the checkpoint itself; fine-tunes the
checkpoint on the calls of all rounds so far, each about EPOCHS times; and evaluates.
"""

import argparse
import itertools
import pathlib
import re
import sys
from collections import Counter

import stages
import table2_api_calls
from reproduce import ROOT, main

from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.records import Document, write_records
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.training.sources import read_texts

TITLE = 'Ablation: rounds of bootstrapping'
_OPERATOR = re.compile(r'(?<=[\d)]) *([-+*/])')


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  stages.add(parser)
  parser.add_argument('--rounds', type=int, default=3, metavar='N')
  parser.add_argument('--texts', type=int, default=480, metavar='N', help='annotated in a round')


def run(args: argparse.Namespace) -> str:
  """Runs all rounds and returns a table with a row for each."""
  stages.check(args)
  parts = divided(args)
  if args.dry_run:
    return (f'# {TITLE}\n\n{args.rounds} rounds of {args.texts} texts of {args.corpus}; each '
            f'trains {args.checkpoint} and asks {args.limit} questions of {", ".join(args.tasks)}.')
  rows = [['round', 'texts', 'calls scored', 'kept', 'by operation', *args.tasks]]
  rows += [row(args, number, texts) for number, texts in enumerate(parts)]
  return f'# {TITLE}\n\n{markdown_table(rows)}\n\n{stages.NOTE.format(args.limit)}'


def divided(args: argparse.Namespace) -> list[list[Document]]:
  """Returns the texts of each round.

  Raises:
    UserError: there are too few.
  """
  corpus = read_corpus(args.corpus)
  parts = [list(itertools.islice(corpus, args.texts)) for _ in range(args.rounds)]
  if not parts or not parts[-1]:
    raise UserError(f'{args.corpus} has {sum(map(len, parts))} texts: too few for {args.rounds} '
                    f'rounds of {args.texts}')
  return parts


def row(args: argparse.Namespace, number: int, texts: list[Document]) -> list[str]:
  """Runs a round and returns its row of the table."""
  folders = [args.output_dir / f'round{i}' for i in range(number + 1)]
  own, sampler = folders[-1], folders[-2] / 'model' if number else args.checkpoint
  own.mkdir(parents=True, exist_ok=True)
  write_records(own / 'texts.jsonl', texts)
  stages.annotate(args, own / 'texts.jsonl', sampler, own / 'calls')
  stages.finetune(args, [folder / 'calls' for folder in folders], own / 'model')
  stages.evaluate(args, own / 'model', own / 'evaluation')
  return [str(number), str(len(texts)), *counted(own / 'calls', args.tools),
          *stages.figures(args, own / 'evaluation')]


def counted(run: pathlib.Path, tools: list[str]) -> list[str]:
  """Returns how many calls of a run were scored and kept, and with which operations."""
  kept = Counter(operation(call.argument) for text in read_texts(str(run)) for call in text.calls)
  scored = sum(1 for tool in tools for _ in table2_api_calls.scored_calls(run, tool))
  return [f'{scored:,}', f'{kept.total():,}',
          ', '.join(f'{name} {count}' for name, count in kept.most_common())]


def operation(argument: str) -> str:
  """Returns the one operator of an expression, `several`, or `other` where there is none."""
  operators = set(_OPERATOR.findall(argument))
  return 'several' if len(operators) > 1 else next(iter(operators), 'other')


if __name__ == '__main__':
  sys.exit(main('bootstrapping', TITLE, run, add, ROOT / 'bootstrapping'))
