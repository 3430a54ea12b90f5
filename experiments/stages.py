"""Functions that experiments on the whole pipeline share: annotate, fine-tune and evaluate.

They run the commands, each in a process of its own, so that its memory is released. A command does
not repeat work that is done.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from toolformer_jax.commands import options
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.scores import Score
from toolformer_jax.evaluation.tables import format_score
from toolformer_jax.evaluation.tasks import find_tasks
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.examples import annotated_example
from toolformer_jax.training.mixture import build_epoch, hold_out
from toolformer_jax.training.sources import read_texts

NOTE = 'In brackets: 95%. With tools, the first {} questions of each task.'


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options of all stages."""
  options.add_corpus(parser)
  options.add_checkpoint(parser)
  options.add_tools(parser)
  options.add_required(parser, 'tasks', metavar='A,B', type=options.names,
                       help='as for toolformer evaluate')
  parser.add_argument('--data_dir', default='data', metavar='D', help='as for toolformer evaluate')
  parser.add_argument('--limit', type=int, default=200, metavar='N', help='questions of each task')
  parser.add_argument('--epochs', type=float, default=3.0, metavar='N',
                      help='how often each text is trained on; FinetuneConfig.steps follows')
  options.add_configuration(parser)


def check(args: argparse.Namespace, *bindings: str) -> None:
  """Checks the options before hours of work, with each of `bindings` in turn.

  Raises:
    UserError: an option is wrong.
  """
  for binding in ('', *bindings):
    config = options.configuration(args, *filter(None, [binding]))
    config.toolbox.canonical_names(args.tools)
  args.tasks = [task.name for task in find_tasks(args.tasks)]
  if not pathlib.Path(args.data_dir).is_dir():
    raise UserError(f'--data_dir: there is no folder {args.data_dir}')
  next(read_corpus(args.corpus))


def annotate(args: argparse.Namespace, corpus: pathlib.Path | str, checkpoint: pathlib.Path | str,
             folder: pathlib.Path, *bindings: str) -> None:
  """Finds the calls of a corpus; raises UserError if the command fails."""
  toolformer(args, bindings, 'annotate', f'--corpus={corpus}', f'--checkpoint={checkpoint}',
              f'--tools={",".join(args.tools)}', f'--output_dir={folder}')


def finetune(args: argparse.Namespace, data: Sequence[pathlib.Path], folder: pathlib.Path,
             *bindings: str) -> None:
  """Trains the checkpoint on what `annotate` left in the folders `data`.

  Raises:
    UserError: there is no call in them, or the command fails or was stopped.
  """
  steps = f'FinetuneConfig.steps={_steps(args, data, bindings)}'
  toolformer(args, (*bindings, steps), 'finetune', '--data', *map(str, data),
              f'--checkpoint={args.checkpoint}', f'--output_dir={folder}')
  if not (folder / 'model').exists():  # after SIGTERM it saves its state and exits with 0
    raise UserError('stopped; the same command continues from the state that was saved')


def evaluate(args: argparse.Namespace, model: pathlib.Path, folder: pathlib.Path,
             *bindings: str) -> None:
  """Evaluates a model with tools; raises UserError if the command fails."""
  toolformer(args, bindings, 'evaluate', f'--tasks={",".join(args.tasks)}',
              f'--tools={",".join(args.tools)}', f'--checkpoint={model}', '--arms=toolformer',
              f'--data_dir={args.data_dir}', f'--limit={args.limit}', f'--output_dir={folder}')


def figures(args: argparse.Namespace, folder: pathlib.Path) -> list[str]:
  """Returns what `evaluate` left in a folder of each task, all groups of questions together."""
  summary = json.loads((folder / 'summary.json').read_text('utf-8'))
  whole = {score['task']: Score(**score) for score in summary['scores'] if not score['group']}
  return [format_score(whole[task]) if task in whole else '-' for task in args.tasks]


def toolformer(args: argparse.Namespace, bindings: Sequence[str], *command: str) -> None:
  """Runs a command with the gin files and bindings of `args`, and more bindings.

  Raises:
    UserError: the command fails.
  """
  gin = [*(f'--gin_file={file}' for file in args.gin_file),
         *(f'--gin.{binding}' for binding in (*args.bindings, *bindings))]
  run_process(f'toolformer {command[0]}', [sys.executable, '-m', 'toolformer_jax', *command, *gin])


def run_process(name: str, command: Sequence[str]) -> None:
  """Runs a process that can be interrupted; errors call it `name`.

  Raises:
    UserError: its exit code is not 0.
  """
  code = _ended(command)
  if code == 130:
    raise KeyboardInterrupt
  if code:
    raise UserError(f'{name} failed, see above; the same command continues from here')


def _ended(command: Sequence[str]) -> int:
  """Runs a command and returns its exit code; on SIGTERM stops it and waits for it."""
  before = signal.signal(signal.SIGTERM, signal.default_int_handler)
  child = subprocess.Popen(command, stdout=sys.stderr)
  try:
    return child.wait()
  except KeyboardInterrupt:
    child.terminate()  # so that it saves its state
    child.wait()
    raise
  finally:
    signal.signal(signal.SIGTERM, before)


def _steps(args: argparse.Namespace, data: Sequence[pathlib.Path], bindings: Sequence[str]) -> int:
  """Returns the updates in which every text is seen about EPOCHS times."""
  config, tokenizer = options.configuration(args, *bindings), Tokenizer.load(data[0])
  texts = [text for source in data for text in read_texts(str(source))]
  if not texts:
    raise UserError(f'{", ".join(map(str, data))}: no call was kept, there is nothing to learn')
  trained = build_epoch(hold_out(texts, config.mixture)[0], config.mixture)
  settings = config.finetune
  if not settings.batch_rows:
    return max(1, round(args.epochs * len(trained) / settings.batch_size))
  tokens = sum(len(annotated_example(text, tokenizer, config.syntax).token_ids)
               for text in trained)
  return max(1, round(args.epochs * tokens / (settings.batch_rows * settings.row_tokens)))
