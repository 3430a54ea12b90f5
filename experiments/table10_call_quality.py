"""Table 10: calls with their gains, from the best to the worst, for a person to rate.

    python experiments/table10_call_quality.py --run D --calls 10

D is an output folder of `toolformer annotate`. Shows calls, results and gains, and no text.
"""

import argparse
import sys

import table2_api_calls
from reproduce import main

from toolformer_jax.data.records import ScoredCall
from toolformer_jax.experiments import paper
from toolformer_jax.runtime.markdown import markdown_table

TITLE = 'Table 10: calls and how much they help'


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  table2_api_calls.add(parser)
  parser.add_argument('--calls', type=int, default=10, metavar='N')


def run(args: argparse.Namespace) -> str:
  """Returns a table of calls at equal distances in the ranking by gain."""
  calls = [call for calls in table2_api_calls.scored_by_tool(args.run).values() for call in calls]
  if args.dry_run:
    return f'# {TITLE}\n\nShows {args.calls} of {len(calls):,} calls in {args.run}.'
  rows = [['call', 'result', 'gain', 'useful?']]
  rows += [[f'{call.tool}({call.argument})', call.result, gain(call), ''] for call
           in spread(sorted(calls, key=lambda call: -call.gain), args.calls)]
  rows += [[f'{tool}({argument})', '(the paper\'s)', f'{score:.2f}', 'yes' if useful else 'no']
           for tool, argument, score, useful in paper.CALL_QUALITY]
  return (f'# {TITLE}\n\n{markdown_table(rows)}\n\n'
          f'Of {len(calls):,} calls. The last column is for the rater.')


def gain(call: ScoredCall) -> str:
  """Returns the gain in nats; a bound where the loss of the call without a result is unknown."""
  return f'{"<= " if call.loss_call is None else ""}{call.gain:.2f}'


def spread(ranked: list[ScoredCall], count: int) -> list[ScoredCall]:
  """Returns `count` of `ranked` at equal distances, the first and the last among them."""
  places = {round(i * (len(ranked) - 1) / max(count - 1, 1)) for i in range(count)}
  return [ranked[place] for place in sorted(places)]


if __name__ == '__main__':
  sys.exit(main('table10_call_quality', TITLE, run, add))
