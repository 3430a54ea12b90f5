"""Records numbers that the code computes, and compares two recordings.

For changes of the code that must not change a number.

    python experiments/same_numbers.py record --data_dir D --output_dir before
    # change the code
    python experiments/same_numbers.py record --data_dir D --output_dir after
    python experiments/same_numbers.py compare before after

A recording holds the quickstart (annotation and the losses of its training), 64 texts that its
model generates with tools, its answers to 100 problems of SVAMP, and the plan of GPT-J 6B on eight
chips of a TPU v5e. Files of records have to be equal line by line, except for the names of fields;
losses of training have to agree to 1e-6.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from toolformer_jax import cli
from toolformer_jax.errors import UserError

GENERATED_TEXTS, FIRST_PROBLEM = 64, 2000
SVAMP_PROBLEMS = 100
LOSS_TOLERANCE = 1e-6
# Fields that were renamed, by their former names.
RENAMED = {'loss_nothing': 'loss_no_call'}
# Fields that depend on the time or the machine.
IGNORED = ('compile_s', 'seconds', 'step_seconds', 'tokens_per_second', 'time')


def main() -> None:
  """Records or compares."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = parser.add_subparsers(dest='command', required=True)
  recording = commands.add_parser('record')
  recording.add_argument('--data_dir', required=True, help='D/svamp/ holds SVAMP.json')
  recording.add_argument('--output_dir', required=True, type=pathlib.Path)
  comparing = commands.add_parser('compare')
  comparing.add_argument('before', type=pathlib.Path)
  comparing.add_argument('after', type=pathlib.Path)
  args = parser.parse_args()
  if args.command == 'record':
    record(args.data_dir, args.output_dir)
  else:
    differences = list(compare(args.before, args.after))
    print('\n'.join(differences) or 'equal')
    sys.exit(bool(differences))


def record(data_dir: str, output: pathlib.Path) -> None:
  """Runs everything that is recorded, into `output`."""
  output.mkdir(parents=True, exist_ok=True)
  model, quickstart = output / 'quickstart/model', ['--gin_file', 'quickstart.gin']
  python('experiments/quickstart.py', '--output_dir', output / 'quickstart')
  write_prompts(output / 'prompts.jsonl')
  generated = toolformer(
      'generate', '--checkpoint', model, '--tools', 'calculator,wikisearch', '--json', '--input',
      output / 'prompts.jsonl', *quickstart)
  (output / 'generated.jsonl').write_text(generated, 'utf-8')
  toolformer(
      'evaluate', '--arms', 'base=smollm2-135m,disabled,toolformer', '--checkpoint', model,
      '--tasks', 'svamp', '--data_dir', data_dir, '--limit', str(SVAMP_PROBLEMS), '--tools',
      'calculator', '--output_dir', output / 'svamp')
  plan = toolformer('plan', '--model', 'gptj_6b', '--topology', 'v5e-8', '--step', 'train',
                    '--batch', '32', '--length', '1024', '--json')
  (output / 'plan.jsonl').write_text(plan, 'utf-8')


def toolformer(*arguments: str | pathlib.Path) -> str:
  """Runs a command and returns its standard output."""
  return python('-m', 'toolformer_jax', *arguments)


def python(*arguments: str | pathlib.Path) -> str:
  """Runs Python and returns its standard output; raises UserError if it fails."""
  done = subprocess.run([sys.executable, *map(str, arguments)], check=False,
                        stdout=subprocess.PIPE, encoding='utf-8')
  if done.returncode:
    raise UserError(f'{" ".join(map(str, arguments))} failed, see above')
  return done.stdout


def write_prompts(path: pathlib.Path) -> None:
  """Writes generated word problems without their solutions, which the quickstart does not use."""
  source = pathlib.Path(toolformer('fetch', 'word-problems').strip())
  with open(source, encoding='utf-8') as file:
    texts = [json.loads(line)['text'] for line in file]
  questions = [text[:text.rindex('? ') + 1] for text in texts[FIRST_PROBLEM:] if '? ' in text]
  lines = [json.dumps({'id': i, 'text': text})
           for i, text in enumerate(questions[:GENERATED_TEXTS])]
  path.write_text('\n'.join(lines) + '\n', 'utf-8')


def compare(before: pathlib.Path, after: pathlib.Path) -> Iterator[str]:
  """Yields what differs between two recordings, a line each."""
  old, new = files(before), files(after)
  if not old:
    yield f'{before} holds no recording'
  for name in sorted(old.keys() ^ new.keys()):
    yield f'{name} is only in {before if name in old else after}'
  for name in sorted(old.keys() & new.keys()):
    if problem := difference(name, read(old[name]), read(new[name])):
      yield f'{name}: {problem}'


def files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the files of a recording that are compared, by their names in it."""
  return {path.relative_to(folder).as_posix(): path for path in folder.rglob('*.jsonl')}


def read(path: pathlib.Path) -> list[Any]:
  """Returns the records of a file, without what depends on the moment."""
  return [normalized(json.loads(line)) for line in path.read_text('utf-8').splitlines()]


def normalized(value: Any) -> Any:
  """Returns `value` with today's names of fields."""
  if isinstance(value, list):
    return [normalized(item) for item in value]
  if not isinstance(value, dict):
    return value
  return {RENAMED.get(key, key): normalized(item) for key, item in value.items()
          if key not in IGNORED}


def difference(name: str, old: list[Any], new: list[Any]) -> str:
  """Returns how the records of a file differ; '' if they do not."""
  if len(old) != len(new):
    return f'{len(old)} records before, {len(new)} after'
  for number, (was, now) in enumerate(zip(old, new, strict=True), 1):
    if name.endswith('metrics.jsonl'):
      losses = [record.get('loss') for record in (was, now)]
      if losses[0] != losses[1] and abs(losses[0] - losses[1]) > LOSS_TOLERANCE:
        return f'line {number}: the loss was {losses[0]} and is {losses[1]}'
    elif was != now:
      return f'line {number}: was {json.dumps(was)[:300]}, is {json.dumps(now)[:300]}'
  return ''


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
