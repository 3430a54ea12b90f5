"""The effect of single settings on the scores: one setting is changed at a time.

    python experiments/ablation_settings.py --gin_file answers.gin --corpus F --tools calculator \\
        --checkpoint smollm2-135m --tasks svamp --data_dir D \\
        --change AnnotationConfig.look_ahead_guard=False calculator/ToolConfig.tau_f=0.3 \\
                 FinetuneConfig.mask_results=True GenerationConfig.max_calls=3

Annotates, fine-tunes and evaluates as configured, and once more for each change. A change to the
training uses the calls of the unchanged run, and a change to the evaluation also its model.
"""

import argparse
import sys

import stages
from reproduce import ROOT, main

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.training.sources import read_texts

TITLE = 'Ablation: settings'
CONFIGURED = 'as configured'
_OF_TRAINING = ('FinetuneConfig.', 'MixtureConfig.')
_OF_EVALUATION = ('GenerationConfig.', 'EvaluationConfig.')


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  stages.add(parser)
  parser.add_argument('--change', nargs='+', required=True, metavar='NAME=VALUE',
                      help='settings, of which one at a time is changed; written as after --gin.')


def run(args: argparse.Namespace) -> str:
  """Runs all stages and returns a table with a row for each change."""
  stages.check(args, *args.change)
  if args.dry_run:
    return (f'# {TITLE}\n\n{args.corpus} by {args.checkpoint}, as configured and with each of: '
            f'{", ".join(args.change)}; {args.limit} questions of {", ".join(args.tasks)}.')
  rows = [['', 'texts with calls', *args.tasks], row(args)]
  for change in args.change:
    try:
      rows.append(row(args, change))
    except UserError as error:  # for instance, it keeps no call
      rows.append([change, str(error), *['-'] * len(args.tasks)])
  return f'# {TITLE}\n\n{markdown_table(rows)}\n\n{stages.NOTE.format(args.limit)}'


def row(args: argparse.Namespace, change: str = '') -> list[str]:
  """Runs the stages that `change` affects, without a change all; returns a row of the table."""
  first, own = first_stage(change), args.output_dir / (change or CONFIGURED).replace('/', '.')
  calls, model = ((args.output_dir / CONFIGURED if first > stage else own) / name
                  for stage, name in enumerate(('calls', 'model')))
  bindings = (change,) if change else ()
  if first == 0:
    stages.annotate(args, args.corpus, args.checkpoint, calls, *bindings)
  if first <= 1:
    stages.finetune(args, [calls], model, *bindings)
  stages.evaluate(args, model, own / 'evaluation', *bindings)
  texts = sum(1 for _ in read_texts(str(calls)))
  return [change or CONFIGURED, f'{texts:,}', *stages.figures(args, own / 'evaluation')]


def first_stage(change: str) -> int:
  """Returns the first stage that a change affects: 0 annotates, 1 trains, 2 evaluates."""
  if change.startswith(_OF_EVALUATION):
    return 2
  return 1 if change.startswith(_OF_TRAINING) else 0


if __name__ == '__main__':
  sys.exit(main('ablation_settings', TITLE, run, add, ROOT / 'ablation_settings'))
