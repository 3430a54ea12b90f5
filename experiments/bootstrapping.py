"""Rounds of annotating and fine-tuning, each sampling calls from the model of the one before.

    python experiments/bootstrapping.py --gin_file answers.gin --corpus F --tools calculator \\
        --checkpoint smollm2-135m --tasks svamp --data_dir D --rounds 3 --texts 480 --limit 200

The paper's own suggestion for the few calls that the calculator gets (section 7). A round annotates
the next TEXTS texts of the corpus, the first one by the checkpoint itself; fine-tunes the
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

from toolformer_jax.annotation.corpus import read_corpus
from toolformer_jax.annotation.records import write_records
from toolformer_jax.evaluation.tables import markdown
from toolformer_jax.training.sources import read_texts

TITLE = 'Ablation: rounds of bootstrapping'
_OPERATOR = re.compile(r'(?<=[\d)]) *([-+*/])')


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  stages.add(parser)
  parser.add_argument('--rounds', type=int, default=3, metavar='N')
  parser.add_argument('--texts', type=int, default=480, metavar='N', help='annotated in a round')


def run(args: argparse.Namespace) -> str:
  """Does all rounds and returns a table with a row for each."""
  if args.dry_run:
    return (f'# {TITLE}\n\n{args.rounds} rounds of {args.texts} texts of {args.corpus}; each '
            f'trains {args.checkpoint} and asks {args.limit} questions of {args.tasks}.')
  texts, tasks = read_corpus(args.corpus), args.tasks.split(',')
  rows, calls, sampler = [['round', 'texts', 'calls scored', 'kept', 'by operation', *tasks]], [], \
      args.checkpoint
  for number in range(args.rounds):
    folder = args.output_dir / f'round{number}'
    chosen = list(itertools.islice(texts, args.texts))
    if not (folder / 'texts.jsonl').exists():
      folder.mkdir(parents=True, exist_ok=True)
      write_records(folder / 'texts.jsonl', chosen)
    calls.append(folder / 'calls')
    stages.annotate(args, folder / 'texts.jsonl', sampler, calls[-1])
    stages.finetune(args, calls, folder / 'model')
    stages.evaluate(args, folder / 'model', folder / 'evaluation')
    sampler = folder / 'model'
    rows.append([str(number), str(len(chosen)), *counted(calls[-1], args.tools.split(',')),
                 *stages.figures(folder / 'evaluation', tasks)])
  return (f'# {TITLE}\n\n{markdown(rows)}\n\nAccuracy in percent with tools, the first '
          f'{args.limit} questions; 95% in brackets.')


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
