"""Kills a run at random moments, starts it again, and compares what it leaves.

    python experiments/survive_kills.py --corpus F --texts 10 --kills 20 --output_dir D -- OPTIONS
    python experiments/survive_kills.py --command evaluate --tiny --output_dir D -- OPTIONS

OPTIONS are those of the command: of `annotate`, for instance, `--checkpoint smollm2-135m --tools
calculator`. With --tiny, a small model of random weights is made. One run is not disturbed. Others
are killed (SIGKILL) at random moments and started again until they end, each in a new folder, until
all kills are used. All files must be equal byte by byte, and a trained model bit by bit, except for
times, locks and the states to resume from. Of `experiment`, reports, predictions and the weights of
trained models are compared.
"""

import argparse
import itertools
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from tiny_model import save_tiny_model

from toolformer_jax import cli
from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.records import write_records
from toolformer_jax.errors import UserError

_OWN = ('times.log', '.lock', '.turn', 'events.out.tfevents')
_STATES, _MODEL = 'steps', 'model/variables'  # of fine-tuning; Orbax names their files at random
# Orbax names its files at random, so that equal weights have another hash in each run.
_HASH_OF_TRAINED = re.compile(rb'(stages/finetune-\w+`) \(sha256 \w+\)')
# In metrics.jsonl: times, and what each process writes with its first step.
_OF_PROCESSES = ('step_s', 'tokens_per_s', 'mfu', 'step_bytes')


def main() -> None:
  """Makes the runs, compares them, and exits with 1 if they differ."""
  args = parse()
  shutil.rmtree(args.output_dir, ignore_errors=True)
  args.output_dir.mkdir(parents=True)
  command = [sys.executable, '-m', 'toolformer_jax', args.command, *inputs(args), *args.options,
             '--output_dir']
  start = time.monotonic()
  run_to_end([*command, str(args.output_dir / 'undisturbed')])
  seconds = time.monotonic() - start
  files = files_of_experiment if args.command == 'experiment' else files_of_run
  expected = files(args.output_dir / 'undisturbed')
  kills, run, differing = 0, 0, []
  moments = random.Random(args.seed)
  while kills < args.kills:
    folder = args.output_dir / f'killed-{run}'
    kills += disturb([*command, str(folder)], args.kills - kills, args.within or seconds, moments)
    differing += compare(folder.name, files(folder), expected)
    run += 1
  print(json.dumps({'command': args.command, 'files': len(expected), 'seconds': round(seconds, 1),
                    'kills': kills, 'runs': run, 'differing': differing}))
  sys.exit(bool(differing))


def parse() -> argparse.Namespace:
  """Parses the command line; the options after `--` are those of the command."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--command', choices=('annotate', 'evaluate', 'experiment', 'finetune'),
                      default='annotate')
  parser.add_argument('--corpus', metavar='F', help='of all but evaluate')
  parser.add_argument('--tiny', action='store_true', help='make a model of random weights')
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='D')
  for name, default in (('texts', 10), ('kills', 20), ('seed', 0)):
    parser.add_argument(f'--{name}', type=int, default=default, metavar='N')
  parser.add_argument('--within', type=float, metavar='S', help='kill within so many seconds of a '
                      'start (default: those of the run that is left alone)')
  parser.add_argument('options', nargs='*', metavar='OPTIONS')
  args = parser.parse_args()
  if args.corpus is None and args.command != 'evaluate':
    parser.error(f'{args.command} needs --corpus')
  return args


def inputs(args: argparse.Namespace) -> list[str]:
  """Writes the first texts of the corpus and the small model; returns the options with them."""
  options = []
  if args.corpus:
    corpus = args.output_dir / 'corpus.jsonl'
    documents = itertools.islice(read_corpus(args.corpus), args.texts)
    write_records(corpus, documents)
    options += ['--data' if args.command == 'finetune' else '--corpus', str(corpus)]
  if args.tiny:
    model = save_tiny_model(args.output_dir / 'tiny', max_positions=2048)
    options += ['--checkpoint', str(model)]
  return options


def disturb(command: Sequence[str], kills: int, seconds: float, moments: random.Random) -> int:
  """Runs `command` until it ends by itself, killing it up to `kills` times; returns the number.

  Each moment is drawn from the first `seconds` of a start: some kills come while it loads.
  """
  for killed in range(kills):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
      process.wait(moments.uniform(0, seconds))
      return killed
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
  run_to_end(command)
  return kills


def run_to_end(command: Sequence[str]) -> None:
  """Runs a command; raises UserError if it fails."""
  if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
    raise UserError(f'{" ".join(command)} failed, see above')


def files_of_experiment(folder: pathlib.Path) -> dict[str, bytes]:
  """Returns the reports, and the predictions and trained weights of all stages."""
  found = {path.relative_to(folder).as_posix():
           _HASH_OF_TRAINED.sub(rb'\1', path.read_bytes().replace(str(folder).encode(), b''))
           for pattern in ('**/report.md', 'table.tex', 'stages/*/predictions/*.jsonl')
           for path in folder.glob(pattern)}
  for stage in folder.glob('stages/finetune-*'):
    name = stage.relative_to(folder).as_posix()
    found |= {f'{name}/{leaf}': content for leaf, content in trained_weights(stage).items()}
  return found


def files_of_run(folder: pathlib.Path) -> dict[str, bytes]:
  """Returns what has to be equal: the files of a run, and the weights of a trained model."""
  found = {}
  for path in folder.rglob('*'):
    name = path.relative_to(folder).as_posix()
    if path.is_file() and not path.name.startswith(_OWN) and not name.startswith((_STATES, _MODEL)):
      content = path.read_bytes().replace(str(folder).encode(), b'')  # config.gin names its folder
      found[name] = comparable(content) if path.name == 'metrics.jsonl' else content
  if (folder / _MODEL).is_dir():
    found |= trained_weights(folder)
  return found


def trained_weights(folder: pathlib.Path) -> dict[str, bytes]:
  """Returns the weights of the model that a run has trained."""
  leaves = jax.tree_util.tree_leaves_with_path(load_model(folder).variables)
  return {f'{_MODEL}{jax.tree_util.keystr(path)}': np.asarray(leaf).tobytes()
          for path, leaf in leaves}


def comparable(metrics: bytes) -> bytes:
  """Returns the lines of metrics.jsonl without the fields that differ between equal runs."""
  rows = [json.loads(line) for line in metrics.splitlines()]
  return '\n'.join(
      json.dumps({name: value for name, value in row.items() if name not in _OF_PROCESSES})
      for row in rows).encode()


def compare(name_of_run: str, found: Mapping[str, bytes], expected: Mapping[str, bytes]
            ) -> list[str]:
  """Returns the files of a run that differ from the expected ones."""
  return sorted(f'{name_of_run}/{name}' for name in found.keys() | expected.keys()
                if found.get(name) != expected.get(name))


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
