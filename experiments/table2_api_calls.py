"""Table 2: how many examples have a call that helps, by tool and threshold.

    python experiments/table2_api_calls.py --run D

D is an output folder of `toolformer annotate`; of an unfinished run, the calls so far are counted.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator

from reproduce import main

from toolformer_jax.annotation.config import THRESHOLDS
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.stage_keys import stage_name
from toolformer_jax.data.records import ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.experiments import paper
from toolformer_jax.runtime.markdown import markdown_table

TITLE = 'Table 2: examples with API calls in C*'


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--run', type=pathlib.Path, required=True, metavar='D',
                      help='output folder of annotate')


def scored_calls(run: pathlib.Path, tool: str) -> Iterator[ScoredCall]:
  """Yields the calls of a tool that have been scored."""
  return iter(RunReader(run).calls(tool, 'filter'))


def scored_by_tool(run: pathlib.Path) -> dict[str, list[ScoredCall]]:
  """Returns the scored calls of each of the paper's tools that has some.

  Raises:
    UserError: none has.
  """
  by_tool = {tool: list(scored_calls(run, tool)) for tool in paper.API_CALLS}
  by_tool = {tool: calls for tool, calls in by_tool.items() if calls}
  if not by_tool:
    raise UserError(f'{run} has no scored calls; --run must be an output folder of annotate')
  return by_tool


def run(args: argparse.Namespace) -> str:
  """Counts the texts; a text counts once for each tool, as in the paper."""
  tools = [tool for tool in paper.API_CALLS if (args.run / stage_name(tool, 'filter')).is_dir()]
  if not tools:
    raise UserError(f'{args.run} has no scored calls; make it by: toolformer annotate --corpus F '
                    f'--checkpoint C --tools {",".join(paper.API_CALLS).lower()} '
                    f'--output_dir {args.run}')
  if args.dry_run:
    return f'# {TITLE}\n\nCounts the calls of {", ".join(tools)} in {args.run}.'
  rows = [['tool', *(f'{who}, tau_f = {t}' for t in THRESHOLDS for who in ('ours', 'paper'))]]
  for tool in tools:
    calls = list(scored_calls(args.run, tool))
    ours = [len({call.document_id for call in calls if call.gain >= t}) for t in THRESHOLDS]
    pairs = zip(ours, (paper.API_CALLS[tool][t] for t in THRESHOLDS), strict=True)
    rows.append([tool, *(f'{count:,}' for pair in pairs for count in pair)])
  return f'# {TITLE}\n\n{markdown_table(rows)}\n\nThe paper had more than a million texts of CCNet.'


if __name__ == '__main__':
  sys.exit(main('table2_api_calls', TITLE, run, add))
