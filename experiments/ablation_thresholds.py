"""How many calls would be kept with other thresholds, and how many of them are right?

    python experiments/ablation_thresholds.py --run D

D is an output folder of `toolformer annotate`. For each tau_f, and each k up to the run's: the
calls that would be kept, as at most one is at a position, and the texts with one. Of the calculator
also how many of them state the number that the text states next, which no rule of the filter looks
at. Needs no model; calls whose third loss was not computed (`skip_hopeless`) count with what is
known of their gain, which can only make them too many below the run's own tau_f.
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterable

import table2_api_calls
from ablation_filter import documents_of
from reproduce import main

from toolformer_jax.annotation.records import Document, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation import paper
from toolformer_jax.evaluation.tables import markdown
from toolformer_jax.tokenizer import Tokenizer

TITLE = 'Ablation: thresholds'
TAU_F = (0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0)
K = (1, 2, 5, 10, 20)
_NEXT_NUMBER = re.compile(r'\s*[$£€]?(-?\d[\d,]*(?:\.\d+)?)')


def run(args: argparse.Namespace) -> str:
  """Counts for every tool of the run."""
  by_tool = {tool: list(table2_api_calls.scored_calls(args.run, tool)) for tool in paper.API_CALLS}
  by_tool = {tool: calls for tool, calls in by_tool.items() if calls}
  if not by_tool:
    raise UserError(f'{args.run} has no scored calls; --run must be an output folder of annotate')
  if args.dry_run:
    counts = ', '.join(f'{len(calls):,} of {tool}' for tool, calls in by_tool.items())
    return f'# {TITLE}\n\nCounts {counts}.'
  documents = {document.id: document for document in documents_of(args.run)}
  tokenizer = Tokenizer.load(args.run)
  sections = [f'# {TITLE}']
  for tool, calls in by_tool.items():
    sections += [f'## {tool}, {len(calls):,} calls of {len(documents):,} texts',
                 markdown(rows(calls, documents, tokenizer))]
  return '\n\n'.join(sections)


def rows(calls: list[ScoredCall], documents: dict[str, Document], tokenizer: Tokenizer
         ) -> list[list[str]]:
  """Returns a table with a row for each pair of tau_f and k."""
  right = {id(call) for call in calls
           if states_next_number(call, documents[call.document_id].text, tokenizer)}
  most = max(len(positions) for positions in by_probability(calls).values())
  table = [['tau_f', 'k', 'calls kept', 'texts', 'state the next number']]
  for tau_f in TAU_F:
    for k in (k for i, k in enumerate(K) if not i or K[i - 1] < most):
      found = kept(calls, tau_f, k)
      share = sum(id(call) in right for call in found) / len(found) if found else 0
      table.append([str(tau_f), str(k), f'{len(found):,}',
                    f'{len({call.document_id for call in found}):,}',
                    f'{share:.0%}' if found and right else '-'])
  return table


def kept(calls: Iterable[ScoredCall], tau_f: float, k: int) -> list[ScoredCall]:
  """Returns the best call of each of the k likeliest positions of each text, if it gains tau_f."""
  likeliest = {name: set(positions[:k]) for name, positions in by_probability(calls).items()}
  best = {}
  for call in calls:
    place = call.document_id, call.position
    if call.position in likeliest[call.document_id] and call.gain >= tau_f and (
        place not in best or call.gain > best[place].gain):
      best[place] = call
  return list(best.values())


def by_probability(calls: Iterable[ScoredCall]) -> dict[str, list[int]]:
  """Returns the positions of each text that have scored calls, the likeliest first."""
  found = defaultdict(dict)
  for call in calls:
    found[call.document_id][call.position] = call.probability
  return {name: sorted(places, key=lambda at: (-places[at], at)) for name, places in found.items()}


def states_next_number(call: ScoredCall, text: str, tokenizer: Tokenizer) -> bool:
  """Tells whether a call's result is the number that the text states right behind it."""
  number = _NEXT_NUMBER.match(tokenizer.decode(tokenizer.encode(text)[call.position:]))
  try:
    return number is not None and abs(
        float(number[1].replace(',', '')) - float(call.result.replace(',', ''))) <= 0.005
  except ValueError:  # the result of another tool
    return False


if __name__ == '__main__':
  sys.exit(main('ablation_thresholds', TITLE, run, table2_api_calls.add))
