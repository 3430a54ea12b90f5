"""All tables and figures of the paper in one report: OUTPUT_DIR/all.md.

    python experiments/all.py --data_dir D --arms base=C0,cc=C1,disabled=C2,toolformer=C2 \\
        --checkpoint C2 --run R --sizes 124=C3 355=C4

A section without its data, run or sizes is left out, and the report says why. Results that exist
are not computed again. --dry_run prints the plan of all sections.
"""

import argparse
import pathlib
import sys

import figure4_scaling
import table2_api_calls
import table3_lama
import table4_math
import table5_qa
import table6_mlqa
import table7_temporal
import table8_perplexity
import table9_decoding_k
import table10_call_quality
from reproduce import ROOT, CellsFailed, benchmark_table, main

from toolformer_jax.commands import evaluate
from toolformer_jax.errors import UserError

TITLE = 'Toolformer: ours beside the paper'
SECTIONS = (table2_api_calls, table3_lama, table4_math, table5_qa, table6_mlqa, table7_temporal,
            table8_perplexity, table9_decoding_k, table10_call_quality, figure4_scaling)
_NEEDS = {table2_api_calls: 'run', table10_call_quality: 'run', table9_decoding_k: 'checkpoint',
          figure4_scaling: 'sizes'}


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
  for section in SECTIONS:
    needed = _NEEDS.get(section)
    folder = args.output_dir / section.__name__
    own = argparse.Namespace(**{**vars(args), 'output_dir': folder})
    try:
      if needed and not getattr(args, needed):
        raise UserError(f'--{needed} was not given')
      text = (section.run(own) if needed else
              benchmark_table(own, section.TITLE, section.TASKS, folder))
    except CellsFailed as error:
      text = error.report
      failed |= {f'{section.TITLE}: {name}': why for name, why in error.failed.items()}
    except UserError as error:
      text = f'# {section.TITLE}\n\nNot done: {error}'
    parts.append(f'#{text}')  # one level below the title
  report = '\n\n'.join(parts)
  if failed:
    raise CellsFailed(report, failed)
  return report


if __name__ == '__main__':
  sys.exit(main('all', TITLE, run, add, ROOT))
