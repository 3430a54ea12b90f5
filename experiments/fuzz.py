"""Feeds the package with damaged inputs of every kind, and counts how they end.

    python experiments/fuzz.py --output_dir D [--inputs 20000] [--kinds gguf,gin]

An input is accepted, or refused by a UserError. A traceback, no answer within --limit_s and the end
of the process are failures; D/failures has their inputs and tracebacks, and the exit code is 1. An
input depends on --seed, its kind and its number alone, so that `--kinds gguf --first 17 --inputs 1`
repeats one. Each kind runs in a process of its own, which is started again after a failure that it
does not survive.
"""

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import sys
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

import fuzz_checkpoints
import fuzz_protocols
import fuzz_texts

from toolformer_jax import cli
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.runtime import libtpu
from toolformer_jax.runtime.standard_output import print_result

TARGETS = {**fuzz_texts.TARGETS, **fuzz_checkpoints.TARGETS, **fuzz_protocols.TARGETS}
# Of 200 inputs; what needs a process or a model for each input takes longer.
SHARES = {'grammar': 36, 'calculator': 20, 'jsonl': 16, 'compressed': 16, 'mediawiki': 10,
          'wikitext': 16, 'config.json': 14, 'tokenizer.json': 10, 'safetensors': 8, 'gguf': 10,
          'gin': 12, 'mcp_arguments': 12, 'mcp_messages': 2, 'view': 10, 'serving': 8}
_START_S = 300.0  # to load JAX and to compile a small model
_MEMORY = 16 * 2**30  # bytes of addresses; what asks for more gets a MemoryError


def main() -> None:
  """Runs the kinds and exits with 1 if there is a failure."""
  args = parse()
  shutil.rmtree(args.output_dir, ignore_errors=True)
  (args.output_dir / 'failures').mkdir(parents=True)
  total = Counter()
  for kind in args.kinds:
    count = args.inputs if len(args.kinds) == 1 else max(1, args.inputs * SHARES[kind] // 200)
    start = time.monotonic()
    counts, slowest = run_kind(kind, range(args.first, args.first + count), args)
    total += counts
    print_result(json.dumps({
        'kind': kind, 'inputs': count, **counts, 'slowest_s': round(slowest, 2),
        'seconds': round(time.monotonic() - start, 1)}))
  print_result(json.dumps({'kind': 'all', 'inputs': total.total(), **total}))
  sys.exit(bool(total['tracebacks'] + total['hangs'] + total['crashes']))


def parse() -> argparse.Namespace:
  """Parses the command line."""
  parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='D')
  for name, default in (('inputs', 20_000), ('first', 0), ('seed', 0)):
    parser.add_argument(f'--{name}', type=int, default=default, metavar='N')
  parser.add_argument('--kinds', default=','.join(TARGETS), metavar='A,B')
  parser.add_argument('--limit_s', type=float, default=20.0, metavar='S',
                      help='an input that takes longer hangs')
  args = parser.parse_args()
  args.kinds = args.kinds.split(',')
  for kind in args.kinds:
    if kind not in TARGETS:
      raise unknown('kind', kind, TARGETS)
  if args.inputs < 1:
    raise UserError('--inputs must be positive')
  return args


def run_kind(kind: str, numbers: range, args: argparse.Namespace) -> tuple[Counter, float]:
  """Runs the inputs `numbers`; returns how many ended in which way, and the longest time."""
  counts, slowest = Counter(), 0.0
  context = multiprocessing.get_context('spawn')
  while numbers:
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(kind, numbers, args.seed, args.output_dir, theirs))
    process.start()
    theirs.close()
    limit_s = _START_S
    ending = None
    for number in [None, *numbers]:  # the first message says that it is ready
      begin = time.monotonic()
      try:
        ending = ours.recv() if ours.poll(limit_s) else 'hangs'
      except EOFError:
        ending = 'crashes'
      limit_s = args.limit_s
      if number is None and ending != 'ready':
        process.kill()
        raise UserError(f'the process of {kind} does not start: {ending}')
      if number is None:
        continue
      slowest = max(slowest, time.monotonic() - begin)
      counts[ending] += 1
      numbers = numbers[1:]
      if ending in ('hangs', 'crashes'):
        note(args.output_dir, kind, number, ending)
        break
    process.kill()
    process.join()
  return counts, slowest


def work(kind: str, numbers: range, seed: int, folder: pathlib.Path, parent: Connection) -> None:
  """Runs the inputs `numbers` in this process, and tells `parent` how each of them ends."""
  resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
  sys.stderr = open(folder / 'stderr.log', 'a', encoding='utf-8')
  os.dup2(sys.stderr.fileno(), 2)
  logging.disable(logging.WARNING)
  own = (folder / 'work').absolute()
  shutil.rmtree(own, ignore_errors=True)
  own.mkdir()
  libtpu.set_environment()
  target = TARGETS[kind](own)
  parent.send('ready')
  for number in numbers:
    made = target.make(random.Random(f'{seed} {kind} {number}'))
    try:
      ending = target.run(made)
    except BaseException:  # a Rust panic is no Exception
      ending = 'tracebacks'
      note(folder, kind, number, f'{traceback.format_exc()}\n{made!r:.20000}')
    parent.send(ending)
  os._exit(0)  # servers and threads need no end of their own


def note(folder: pathlib.Path, kind: str, number: int, what: Any) -> None:
  """Writes what happened to an input into D/failures."""
  with contextlib.suppress(OSError):
    text = f'{what}\n'
    (folder / 'failures' / f'{kind}-{number}.txt').write_text(text, 'utf-8', 'backslashreplace')


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
