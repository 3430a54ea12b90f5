"""Rounds of annotating and fine-tuning, each sampling calls from the model of the one before.

    python experiments/bootstrapping.py --gin_file answers.gin --corpus F --tools calculator \\
        --checkpoint smollm2-135m --tasks svamp --data_dir D --rounds 3 --texts 480 --limit 200

The paper's own suggestion for the few calls that the calculator gets (section 7). A round annotates
the next TEXTS texts of the corpus, the first one by the checkpoint itself; fine-tunes the
checkpoint on the calls of all rounds so far, each about EPOCHS times; and evaluates. All of it by
the commands of `toolformer`, in OUTPUT_DIR/<round>; what is done is not done again.
"""

import argparse
import itertools
import json
import pathlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import table2_api_calls
from reproduce import ROOT, main

from toolformer_jax.annotation.corpus import read_corpus
from toolformer_jax.annotation.records import AnnotatedDocument, write_records
from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.tables import markdown
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.data import annotated_example
from toolformer_jax.training.sources import read_texts

TITLE = 'Ablation: rounds of bootstrapping'
_OPERATOR = re.compile(r'(?<=[\d)]) *([-+*/])')


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--corpus', required=True, metavar='F')
  options.add_checkpoint(parser)
  parser.add_argument('--tools', required=True, metavar='A,B')
  parser.add_argument('--tasks', required=True, metavar='A,B')
  parser.add_argument('--data_dir', default='data', metavar='D')
  parser.add_argument('--limit', type=int, default=200, metavar='N', help='questions of each task')
  parser.add_argument('--rounds', type=int, default=3, metavar='N')
  parser.add_argument('--texts', type=int, default=480, metavar='N', help='annotated in a round')
  parser.add_argument('--epochs', type=float, default=3.0, metavar='N')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> str:
  """Does all rounds and returns a table with a row for each."""
  if args.dry_run:
    return (f'# {TITLE}\n\n{args.rounds} rounds of {args.texts} texts of {args.corpus}; each '
            f'trains {args.checkpoint} and asks {args.limit} questions of {args.tasks}.')
  texts = read_corpus(args.corpus)
  rows = [['round', 'texts', 'calls scored', 'kept', 'by operation', *args.tasks.split(',')]]
  sampler = args.checkpoint
  for number in range(args.rounds):
    folder = args.output_dir / f'round{number}'
    folder.mkdir(parents=True, exist_ok=True)
    chosen = list(itertools.islice(texts, args.texts))
    if not (folder / 'texts.jsonl').exists():
      write_records(folder / 'texts.jsonl', chosen)
    sampler = one_round(args, folder, sampler, number)
    rows.append(row(folder, number, args.tasks.split(',')))
  return (f'# {TITLE}\n\n{markdown(rows)}\n\nAccuracy in percent with tools, the first '
          f'{args.limit} questions; 95% in brackets.')


def one_round(args: argparse.Namespace, folder: pathlib.Path, sampler: str, number: int) -> str:
  """Annotates, fine-tunes and evaluates; returns the checkpoint that came of it."""
  calls, model = folder / 'calls', folder / 'model'
  toolformer(args, 'annotate', corpus=folder / 'texts.jsonl', checkpoint=sampler, tools=args.tools,
             output_dir=calls)
  data = [str(args.output_dir / f'round{i}' / 'calls') for i in range(number + 1)]
  steps = steps_for(args, data, calls)
  toolformer(args, 'finetune', f'--gin.FinetuneSettings.steps={steps}', '--data', *data,
             checkpoint=args.checkpoint, output_dir=model)
  toolformer(args, 'evaluate', tasks=args.tasks, tools=args.tools, checkpoint=model,
             arms='toolformer', data_dir=args.data_dir, limit=args.limit,
             output_dir=folder / 'evaluation')
  return str(model)


def toolformer(args: argparse.Namespace, command: str, *more: str, **named) -> None:
  """Runs a command in a process of its own, which gives its memory back.

  Raises:
    UserError: it failed, and has said why.
  """
  given = [f'--{name}={value}' for name, value in named.items()]
  gin = [*(f'--gin_file={file}' for file in args.gin_file),
         *(f'--gin.{binding}' for binding in args.bindings)]
  done = subprocess.run([sys.executable, '-m', 'toolformer_jax', command, *given, *gin, *more],
                        stdout=sys.stderr)
  if done.returncode == 130:
    raise KeyboardInterrupt
  if done.returncode:
    raise UserError(f'toolformer {command} failed, see above; the same command goes on from here')


def steps_for(args: argparse.Namespace, data: list[str], run_folder: pathlib.Path) -> int:
  """Returns the updates in which every text is seen about EPOCHS times."""
  settings, tokenizer = options.configuration(args).finetune, Tokenizer.load(run_folder)
  tokens = sum(len(annotated_example(text, tokenizer).ids)
               for source in data for text in read_texts(source))
  return max(1, round(args.epochs * tokens / (settings.batch_rows * settings.row_tokens)))


def row(folder: pathlib.Path, number: int, tasks: list[str]) -> list[str]:
  """Returns what came of a round."""
  records = [text for text in read_texts(str(folder / 'calls'))
             if isinstance(text, AnnotatedDocument)]
  kept = Counter(operation(call.argument) for text in records for call in text.calls)
  tools = {call.tool for text in records for call in text.calls}
  scored = sum(1 for tool in tools for _ in table2_api_calls.scored_calls(folder / 'calls', tool))
  texts = sum(1 for _ in open(folder / 'texts.jsonl', encoding='utf-8'))
  return [str(number), f'{texts:,}', f'{scored:,}', f'{kept.total():,}',
          ', '.join(f'{name} {count}' for name, count in kept.most_common()),
          *figures(folder / 'evaluation' / 'summary.json', tasks)]


def operation(argument: str) -> str:
  """Returns the one operator of an expression, `several`, or `other` where there is none."""
  operators = set(_OPERATOR.findall(argument))
  return 'several' if len(operators) > 1 else next(iter(operators), 'other')


def figures(path: pathlib.Path, tasks: list[str]) -> Iterator[str]:
  """Yields the accuracy in each task."""
  scores = {score['task']: score for score in json.loads(path.read_text('utf-8'))['scores']}
  for task in tasks:
    score = scores.get(task)
    yield f'{score["value"]:.1f} [{score["low"]:.1f}, {score["high"]:.1f}]' if score else '-'


if __name__ == '__main__':
  sys.exit(main('bootstrapping', TITLE, run, add, ROOT / 'bootstrapping'))
