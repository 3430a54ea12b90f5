"""What does a setting do to what comes out in the end? One of them is changed at a time.

    python experiments/ablation_settings.py --gin_file answers.gin --corpus F --tools calculator \\
        --checkpoint smollm2-135m --tasks svamp --data_dir D \\
        --change AnnotationSettings.look_ahead_guard=False calculator/ToolSettings.tau_f=0.3 \\
                 FinetuneSettings.mask_results=True GenerationSettings.max_calls=3

Annotates, fine-tunes and evaluates as configured, and once more for each change. Of a change to
FinetuneSettings the calls are those of the configuration, and of one to GenerationSettings the
model is, too.
"""

import argparse
import sys

import stages
from reproduce import ROOT, main

from toolformer_jax.evaluation.tables import markdown
from toolformer_jax.training.sources import read_texts

TITLE = 'Ablation: settings'


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  stages.add(parser)
  parser.add_argument('--change', nargs='+', required=True, metavar='NAME=VALUE')


def run(args: argparse.Namespace) -> str:
  """Does what is asked for and returns a table with a row for each change."""
  if args.dry_run:
    return (f'# {TITLE}\n\n{args.corpus} by {args.checkpoint}, as configured and with each of: '
            f'{", ".join(args.change)}; {args.limit} questions of {args.tasks}.')
  tasks = args.tasks.split(',')
  rows = [['', 'texts with calls', *tasks], row(args, tasks)]
  rows += [row(args, tasks, change) for change in args.change]
  return (f'# {TITLE}\n\n{markdown(rows)}\n\nAccuracy in percent with tools, the first '
          f'{args.limit} questions; 95% in brackets.')


def row(args: argparse.Namespace, tasks: list[str], *change: str) -> list[str]:
  """Does what the change, if there is one, makes different; returns what came of it."""
  configured, name = args.output_dir / 'as configured', change[0] if change else 'as configured'
  own = args.output_dir / name.replace('/', '.')
  first = _first_stage(name)
  calls = (configured if first > 0 else own) / 'calls'
  model = (configured if first > 1 else own) / 'model'
  stages.annotate(args, args.corpus, args.checkpoint, calls, *(change if first == 0 else ()))
  stages.finetune(args, [calls], model, *(change if first <= 1 else ()))
  stages.evaluate(args, model, own / 'evaluation', *change)
  texts = sum(1 for _ in read_texts(str(calls)))
  return [name, f'{texts:,}', *stages.figures(own / 'evaluation', tasks)]


def _first_stage(change: str) -> int:
  """Returns the first stage that a change concerns: 0 annotates, 1 trains, 2 evaluates."""
  if change.startswith('GenerationSettings.'):
    return 2
  return int(change.startswith(('FinetuneSettings.', 'MixtureSettings.')))


if __name__ == '__main__':
  sys.exit(main('ablation_settings', TITLE, run, add, ROOT / 'ablation_settings'))
