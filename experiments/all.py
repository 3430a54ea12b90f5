"""All tables and figures of the paper in one report: OUTPUT_DIR/all.md.

    python experiments/all.py --data_dir D --arms base=C0,cc=C1,disabled=C2,toolformer=C2 \\
        --checkpoint C2 --run R --sizes 124=C3 355=C4

The tables 3 to 8 have the tasks of `table*.gin`. A section without its data, run or sizes is left
out, and the report says why. Results that exist are not computed again. --dry_run prints the plan
of all sections.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import figure4_scaling
import table2_api_calls
import table9_decoding_k
import table10_call_quality
from reproduce import ROOT, CellsFailed, benchmark_table, main

from toolformer_jax.commands import evaluate
from toolformer_jax.config.loading import load
from toolformer_jax.errors import UserError

TITLE = 'Toolformer: ours beside the paper'
# Gin files.
BENCHMARKS = ('table3_lama', 'table4_math', 'table5_qa', 'table6_mlqa', 'table7_temporal',
              'table8_perplexity')


class Section(NamedTuple):
  """A section of the report: its name, its title, what makes it, and the option that this needs."""

  name: str
  title: str
  run: Callable[[argparse.Namespace], str]
  needs: str = ''


def sections() -> list[Section]:
  """Returns the sections in the order of the paper."""
  return [_of_script(table2_api_calls, 'run'), *map(_of_gin_file, BENCHMARKS),
          _of_script(table9_decoding_k, 'checkpoint'), _of_script(table10_call_quality, 'run'),
          _of_script(figure4_scaling, 'sizes')]


def _of_script(script: ModuleType, needs: str) -> Section:
  return Section(script.__name__, script.TITLE, script.run, needs)


def _of_gin_file(name: str) -> Section:
  config = load([f'experiments/{name}.gin'])
  title, tasks = config.experiment.title, config.macros['TASKS']
  return Section(name, title, lambda args: benchmark_table(args, title, tasks, args.output_dir))


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  evaluate.add_evaluation_options(parser)
  parser.add_argument('--run', type=pathlib.Path, metavar='D', help='output folder of annotate')
  parser.add_argument('--calls', type=int, default=10, metavar='N', help='in table 10')
  parser.add_argument('--sizes', nargs='+', metavar='MILLIONS=C', type=figure4_scaling.size,
                      help='checkpoints for figure 4')


def run(args: argparse.Namespace) -> str:
  """Runs every section; a failure of one does not stop the others."""
  parts, failed = [f'# {TITLE}'], {}
  for section in sections():
    own = argparse.Namespace(**{**vars(args), 'output_dir': args.output_dir / section.name})
    try:
      if section.needs and not getattr(args, section.needs):
        raise UserError(f'--{section.needs} was not given')
      text = section.run(own)
    except CellsFailed as error:
      text = error.report
      failed |= {f'{section.title}: {name}': why for name, why in error.failed.items()}
    except UserError as error:
      text = f'# {section.title}\n\nNot done: {error}'
    parts.append(f'#{text}')  # one level below the title
  report = '\n\n'.join(parts)
  if failed:
    raise CellsFailed(report, failed)
  return report


if __name__ == '__main__':
  sys.exit(main('all', TITLE, run, add, ROOT))
