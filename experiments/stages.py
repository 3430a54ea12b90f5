"""What experiments on the whole way share: annotate, fine-tune, evaluate, by the commands.

Each command runs in a process of its own, which gives its memory back, and does nothing again that
is done.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.data import annotated_example
from toolformer_jax.training.sources import read_texts


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options of all stages."""
  parser.add_argument('--corpus', required=True, metavar='F')
  options.add_checkpoint(parser)
  parser.add_argument('--tools', required=True, metavar='A,B')
  parser.add_argument('--tasks', required=True, metavar='A,B')
  parser.add_argument('--data_dir', default='data', metavar='D')
  parser.add_argument('--limit', type=int, default=200, metavar='N', help='questions of each task')
  parser.add_argument('--epochs', type=float, default=3.0, metavar='N')
  options.add_configuration(parser)


def annotate(args: argparse.Namespace, corpus: pathlib.Path | str, checkpoint: pathlib.Path | str,
             folder: pathlib.Path, *bindings: str) -> None:
  """Finds the calls of a corpus."""
  _toolformer(args, bindings, 'annotate', f'--corpus={corpus}', f'--checkpoint={checkpoint}',
              f'--tools={args.tools}', f'--output_dir={folder}')


def finetune(args: argparse.Namespace, data: Sequence[pathlib.Path], folder: pathlib.Path,
             *bindings: str) -> None:
  """Trains the checkpoint on what `annotate` left in the folders `data`."""
  steps = f'FinetuneSettings.steps={_steps(args, data)}'
  _toolformer(args, (steps, *bindings), 'finetune', '--data', *map(str, data),
              f'--checkpoint={args.checkpoint}', f'--output_dir={folder}')


def evaluate(args: argparse.Namespace, model: pathlib.Path, folder: pathlib.Path,
             *bindings: str) -> None:
  """Asks the questions, with tools."""
  _toolformer(args, bindings, 'evaluate', f'--tasks={args.tasks}', f'--tools={args.tools}',
              f'--checkpoint={model}', '--arms=toolformer', f'--data_dir={args.data_dir}',
              f'--limit={args.limit}', f'--output_dir={folder}')


def figures(folder: pathlib.Path, tasks: Sequence[str]) -> Iterator[str]:
  """Yields the accuracy in each task that `evaluate` left in a folder."""
  summary = json.loads((folder / 'summary.json').read_text('utf-8'))
  scores = {score['task']: score for score in summary['scores']}
  for task in tasks:
    score = scores.get(task)
    yield f'{score["value"]:.1f} [{score["low"]:.1f}, {score["high"]:.1f}]' if score else '-'


def _toolformer(args: argparse.Namespace, bindings: Sequence[str], *command: str) -> None:
  """Runs a command with the configuration of `args` and some more.

  Raises:
    UserError: it failed, and has said why.
  """
  gin = [*(f'--gin_file={file}' for file in args.gin_file),
         *(f'--gin.{binding}' for binding in (*args.bindings, *bindings))]
  done = subprocess.run([sys.executable, '-m', 'toolformer_jax', *command, *gin], stdout=sys.stderr)
  if done.returncode == 130:
    raise KeyboardInterrupt
  if done.returncode:
    raise UserError(f'toolformer {command[0]} failed, see above; the same command goes on from '
                    'here')


def _steps(args: argparse.Namespace, data: Sequence[pathlib.Path]) -> int:
  """Returns the updates in which every text is seen about EPOCHS times."""
  settings, tokenizer = options.configuration(args).finetune, Tokenizer.load(data[0])
  tokens = sum(len(annotated_example(text, tokenizer).ids)
               for source in data for text in read_texts(str(source)))
  return max(1, round(args.epochs * tokens / (settings.batch_rows * settings.row_tokens)))
