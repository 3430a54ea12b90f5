"""Kills an annotation run at random moments, starts it again, and compares what it leaves.

    python experiments/survive_kills.py --corpus F --texts 10 --kills 20 --output_dir D -- OPTIONS

OPTIONS are those of `toolformer annotate`: `--checkpoint smollm2-135m --tools calculator,calendar`.
One run is not disturbed. Others are killed (SIGKILL) at random moments and started again until they
end, each in a new folder, until all kills are used. All files must be equal byte by byte, except
for times and locks.
"""

import argparse
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from toolformer_jax import cli
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.records import write_records
from toolformer_jax.errors import UserError

_OWN = ('times.log', '.lock', '.turn')


def main() -> None:
  """Makes the runs, compares them, and exits with 1 if they differ."""
  args = parse()
  shutil.rmtree(args.output_dir, ignore_errors=True)
  args.output_dir.mkdir(parents=True)
  corpus = args.output_dir / 'corpus.jsonl'
  documents = [document for document, _ in zip(read_corpus(args.corpus), range(args.texts),
                                               strict=False)]
  write_records(corpus, documents)
  command = [sys.executable, '-m', 'toolformer_jax', 'annotate', '--corpus', str(corpus),
             *args.options, '--output_dir']
  start = time.monotonic()
  run_to_end([*command, str(args.output_dir / 'undisturbed')])
  seconds = time.monotonic() - start
  expected = files(args.output_dir / 'undisturbed')
  kills, run, differing = 0, 0, []
  moments = random.Random(args.seed)
  while kills < args.kills:
    folder = args.output_dir / f'killed-{run}'
    kills += disturb([*command, str(folder)], args.kills - kills, args.within or seconds, moments)
    differing += compare(folder, expected)
    run += 1
  print(json.dumps({'texts': len(documents), 'files': len(expected), 'seconds': round(seconds, 1),
                    'kills': kills, 'runs': run, 'differing': differing}))
  sys.exit(bool(differing))


def parse() -> argparse.Namespace:
  """Parses the command line; the options after `--` are those of `annotate`."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--corpus', required=True, metavar='F')
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='D')
  for name, default in (('texts', 10), ('kills', 20), ('seed', 0)):
    parser.add_argument(f'--{name}', type=int, default=default, metavar='N')
  parser.add_argument('--within', type=float, metavar='S', help='kill within so many seconds of a '
                      'start (default: those of the run that is left alone)')
  parser.add_argument('options', nargs='*', metavar='OPTIONS')
  return parser.parse_args()


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


def files(folder: pathlib.Path) -> dict[str, bytes]:
  """Returns the files of a run that have to be equal."""
  found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*')
           if path.is_file() and not path.name.startswith(_OWN)}
  if 'config.gin' in found:  # names its folder, in OUTPUT_DIR
    found['config.gin'] = found['config.gin'].replace(str(folder).encode(), b'')
  return found


def compare(folder: pathlib.Path, expected: dict[str, bytes]) -> list[str]:
  """Returns the files of a run that differ from the expected ones."""
  found = files(folder)
  return sorted(f'{folder.name}/{name}' for name in found.keys() | expected.keys()
                if found.get(name) != expected.get(name))


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
