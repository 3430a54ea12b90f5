"""The paper's five models on five TPU slices: which steps fit, and bounds of their speed.

    python experiments/plan_paper_models.py --output plans.jsonl
    python experiments/plan_paper_models.py --output plans.jsonl --models gptj_6b --slices v5e-8

Plans three steps for each model and slice: fine-tuning (section 4.1: 128 rows of 1,024 tokens, of
which as many are computed at a time as fit; all weights, with the settings of tpu.gin), scoring of
64 rows of 512 tokens, and decoding of 64 texts in a cache of 1,024 tokens. The figures are those of
the TPU compiler, not measurements, and no TPU is needed. A plan takes a minute or two. Plans are
kept in the output file, and the same command continues where it stopped. The table is in Markdown.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from toolformer_jax import cli

os.environ['JAX_PLATFORMS'] = 'cpu'  # before JAX is imported: a TPU that is there stays free

from toolformer_jax.models.presets import preset  # noqa: E402
from toolformer_jax.planning.plan import Request, default_mesh, make_plan  # noqa: E402
from toolformer_jax.planning.search import TPU_FINETUNE  # noqa: E402
from toolformer_jax.planning.slices import GIB, Slice  # noqa: E402

MODELS = ('gpt2_124m', 'gpt2_355m', 'gpt2_774m', 'gpt2_1.5b', 'gptj_6b')
SLICES = ('v5e-8', 'v5e-16', 'v4-8', 'v5p-8', 'v6e-8')
PAPER_ROWS = 128
WORK = {'train': (PAPER_ROWS, 1024), 'score': (64, 512), 'decode': (64, 1024)}


def main() -> None:
  """Plans what is missing in the output file, and prints the table of all that is asked for."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output', required=True, type=pathlib.Path, metavar='F',
                      help='JSON Lines, a plan a line; what is there is not planned again')
  parser.add_argument('--models', type=lambda text: text.split(','), default=MODELS, metavar='A,B')
  parser.add_argument('--slices', type=lambda text: text.split(','), default=SLICES, metavar='A,B')
  args = parser.parse_args()
  cli.log_to_stderr()
  wanted = [(model, name, step) for model in args.models for name in args.slices for step in WORK]
  plans = Plans(args.output)
  for model, name, step in wanted:
    batch, length = WORK[step]
    config = preset(model).replace(dtype='bfloat16')
    where = Slice.named(name)
    plans.add(Request(model, config, where, step, batch, length,
                      default_mesh(step, config, where.chips), TPU_FINETUNE))
  print(table([plans.known[key] for key in wanted]))


class Plans:
  """The plans of a file, to which new ones are added.

  Attributes:
    known: the records of plans by (model, slice, step).
  """

  def __init__(self, file: pathlib.Path):
    """Reads what is there; a line that was cut short is dropped."""
    self._file = file
    lines = file.read_text('utf-8').splitlines(keepends=True) if file.exists() else []
    whole = [line for line in lines if line.endswith('\n')]
    if whole != lines:
      file.write_text(''.join(whole), 'utf-8')
    records = map(json.loads, whole)
    self.known = {(record['model'], record['slice'], record['step']): record for record in records}

  def add(self, request: Request) -> None:
    """Plans `request`, unless that was done; rows that do not fit are halved until they do."""
    key = (request.model, request.slice.short_name, request.step)
    if key in self.known:
      return
    plan = make_plan(request)
    while not plan.fits and plan.request.batch > 1:
      plan = make_plan(request.replace(batch=plan.request.batch // 2))
    self.known[key] = plan.record()
    with self._file.open('a', encoding='utf-8') as file:
      file.write(json.dumps(self.known[key]) + '\n')


def table(records: list[dict[str, Any]]) -> str:
  """Returns the plans as a Markdown table, a row a plan."""
  head = ('model', 'slice', 'chips', 'step', 'rows at a time', 'GiB a chip', 'of', 'kernel',
          'sent, GiB a chip', 'tokens/s at most', 'MFU at most')
  rows = [head, ['---'] * len(head), *map(list, map(_cells, records))]
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _cells(record: dict[str, Any]) -> Iterator[str]:
  yield from (record['model'], record['slice'], str(record['chips']), record['step'])
  if not record['fits']:
    yield from ('does not fit', f'{record["arguments"] / GIB:.1f} + ?',
                f'{record["usable"] / GIB:.1f}', *'----')
    return
  bound = record['roofline']
  sent = sum(kind['bytes'] for kind in record['collectives'].values())
  yield from (
      f'{record["batch"]} x {record["length"]}',
      f'{record["arguments"] / GIB:.1f} + {record["temporaries"] / GIB:.1f}',
      f'{record["usable"] / GIB:.1f}', 'yes' if record['attention_kernel'] else 'no',
      f'{sent / GIB:.1f}', f'{bound["tokens_per_s"]:,.0f}', f'{bound["utilization"]:.0%}')


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
