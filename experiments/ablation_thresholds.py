"""How many calls other values of tau_f and k would keep, and how many of them are right.

    python experiments/ablation_thresholds.py --run D

D is an output folder of `toolformer annotate`. For each tau_f, and each k up to that of the run,
prints the number of calls that would be kept, and of texts with one. For the calculator it also
prints the share of calls whose result is the number that the text states next, which the filter
does not check. Needs no model.

With `early_reject`, gains below the lowest threshold of the run's report are not all known: the
counts of lower thresholds are upper bounds, and are marked. Positions where no sample was a call,
or none was sampled, are missing in the ranking by probability.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction

import table2_api_calls
from ablation_filter import documents_of
from reproduce import main

from toolformer_jax.annotation.early_rejection import (
  MIN_LOSS_NO_CALL,
  REJECTED_POSITIONS,
  REJECTING_TEXTS,
  min_gain,
)
from toolformer_jax.annotation.merge import merge
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.stage_keys import stage_name
from toolformer_jax.data.numbers import number_at, parse_number
from toolformer_jax.data.records import Document, ExecutedCall, ScoredCall
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.tokenizer import Tokenizer

TITLE = 'Ablation: thresholds'
TAU_F = (0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0)
K = (1, 2, 5, 10, 20)
TOLERANCE = Fraction(1, 200)  # the calculator rounds to two decimals


def run(args: argparse.Namespace) -> str:
  """Counts for every tool of the run."""
  by_tool = table2_api_calls.scored_by_tool(args.run)
  if args.dry_run:
    counts = ', '.join(f'{len(calls):,} of {tool}' for tool, calls in by_tool.items())
    return f'# {TITLE}\n\nCounts {counts}.'
  documents, reader = documents_of(args.run), RunReader(args.run)
  tokenizer = reader.tokenizer()
  settings = reader.tool_settings()
  sections = [f'# {TITLE}']
  for tool, calls in by_tool.items():
    rejects = MIN_LOSS_NO_CALL in settings[tool] or any(call.loss_call is None for call in calls)
    known_from = min_gain(settings[tool]['tau_f'], rejects)
    counts = reader.counts(stage_name(tool, 'sample'))
    rejected = counts[REJECTED_POSITIONS], counts[REJECTING_TEXTS]
    ranks = ranked(reader.calls(tool, 'execute'))
    sections += [f'## {tool}, {len(calls):,} calls of {len(documents):,} texts',
                 markdown_table(rows(calls, ranks, documents, tokenizer, known_from, rejected))]
  return '\n\n'.join(sections)


def ranked(calls: Iterable[ExecutedCall]) -> dict[tuple[str, int], int]:
  """Returns the rank of each position with a call in its text, from 0 for the most probable."""
  found = defaultdict(dict)
  for call in calls:
    found[call.document_id][call.position] = call.probability
  return {(name, at): rank for name, places in found.items()
          for rank, at in enumerate(sorted(places, key=lambda at: (-places[at], at)))}


def rows(calls: Sequence[ScoredCall], ranks: dict[tuple[str, int], int],
         documents: Sequence[Document], tokenizer: Tokenizer, known_from: float,
         rejected: tuple[int, int]) -> list[list[str]]:
  """Returns a table with a row for each pair of tau_f and k.

  Below `known_from`, `rejected` positions, in as many texts as its second number says, may keep a
  call too.
  """
  texts = {document.id: document.text for document in documents}
  most = max(ranks.values()) + 1
  table = [['tau_f', 'k', 'calls kept', 'texts', 'state the next number']]
  for tau_f in TAU_F:
    for k in [k for i, k in enumerate(K) if not i or K[i - 1] < most]:
      kept = kept_with(calls, ranks, documents, tau_f, k)
      right = sum(states_next_number(call, texts[call.document_id], tokenizer) for call in kept)
      share = f'{right / len(kept):.0%}' if kept and kept[0].tool == 'Calculator' else '-'
      sizes = len(kept), len({call.document_id for call in kept})
      table.append([str(tau_f), str(k), *(
          f'<= {size + more:,}' if tau_f < known_from else f'{size:,}'
          for size, more in zip(sizes, rejected, strict=True)), share])
  return table


def kept_with(calls: Sequence[ScoredCall], ranks: dict[tuple[str, int], int],
              documents: Sequence[Document], tau_f: float, k: int) -> list[ScoredCall]:
  """Returns those of one tool's calls that C* would contain."""
  chosen = [call for call in calls if ranks[call.document_id, call.position] < k]
  records, _ = merge(documents, chosen, dict.fromkeys({call.tool for call in calls}, tau_f))
  return [call for record in records for call in record.calls]


def states_next_number(call: ScoredCall, text: str, tokenizer: Tokenizer) -> bool:
  """Tells whether a call's result is the number that the text states right after the call."""
  stated = number_at(text, tokenizer.characters_before(text, call.position))
  result = parse_number(call.result)  # None for the result of another tool
  return stated is not None and result is not None and abs(stated.value - result) <= TOLERANCE


if __name__ == '__main__':
  sys.exit(main('ablation_thresholds', TITLE, run, table2_api_calls.add))
