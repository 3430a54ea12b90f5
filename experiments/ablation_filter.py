"""The filter's losses with the call before the whole text, against the call in its place.

    python experiments/ablation_filter.py --run D --checkpoint C --calls 200

D is an output folder of `toolformer annotate` with that model. Scores calls in both ways: before
the text, as the paper does (footnote 3), and in place. Compares which calls each way would keep,
how long it takes, and how many of the kept calls copy from the text after them, which
`look_ahead_guard` would drop. In place, calls of one text could share the computation of the text
before them; here they do not.
"""

import argparse
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Sequence

import table2_api_calls
from reproduce import main

from toolformer_jax.annotation.config import THRESHOLDS, CallPlacement
from toolformer_jax.annotation.execute import looks_ahead
from toolformer_jax.annotation.filter import score_calls
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.calls import CallSyntax
from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.commands import options
from toolformer_jax.data.records import Document, ScoredCall
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.markdown import markdown_table

TITLE = 'Ablation: the call before the text, or in place'


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  table2_api_calls.add(parser)
  options.add_checkpoint(parser)
  parser.add_argument('--calls', type=int, default=200, metavar='N', help='of each tool')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> str:
  """Compares the two for every tool of the run."""
  config = options.configuration(args)
  by_tool = {tool: calls[:args.calls]
             for tool, calls in table2_api_calls.scored_by_tool(args.run).items()}
  if args.dry_run:
    counts = ', '.join(f'{len(calls)} of {tool}' for tool, calls in by_tool.items())
    return f'# {TITLE}\n\nScores {counts}, twice, and some before to compile.'
  model = load_model(args.checkpoint, config=config.model).for_inference()
  documents = {document.id: document for document in documents_of(args.run)}
  sections = [f'# {TITLE}']
  for tool, calls in by_tool.items():
    sections += [f'## {tool}, {len(calls)} calls', compared(model, calls, documents, config.syntax)]
  return '\n\n'.join(sections)


def documents_of(run: pathlib.Path) -> list[Document]:
  """Returns the texts of a run."""
  return list(RunReader(run).documents())


def compared(model: LanguageModel, calls: Sequence[ScoredCall], documents: dict[str, Document],
             syntax: CallSyntax) -> str:
  """Returns a table with a row for each threshold."""
  some = [documents[name] for name in {call.document_id for call in calls}]
  def gains(placement: CallPlacement) -> list[float]:
    return [call.gain for call in score_calls(calls, some, model=model, syntax=syntax,
                                              placement=placement)[0]]
  (before, before_s), (place, place_s) = (
      timed(functools.partial(gains, placement)) for placement in ('prefix', 'in_place'))
  ahead = [looks_ahead(call, documents[call.document_id], model.tokenizer, numbers=True)
           for call in calls]
  rows = [['gain at least', 'kept: before the text', 'in place', 'by both', 'agreement',
           'kept and looking ahead: before the text', 'in place']]
  for t in THRESHOLDS:
    kept = [{i for i, gain in enumerate(gains) if gain >= t} for gains in (before, place)]
    both, either = kept[0] & kept[1], kept[0] | kept[1]
    agreement = f'{len(both) / len(either):.2f}' if either else '-'
    rows.append([str(t), *(str(len(one)) for one in kept), str(len(both)), agreement,
                 *(str(sum(ahead[i] for i in one)) for one in kept)])
  return (f'{markdown_table(rows)}\n\n'
          f'Seconds: {before_s:.1f} before the text, {place_s:.1f} in place. '
          'Agreement: calls kept by both, of those kept by either.')


def timed(work: Callable[[], list[float]]) -> tuple[list[float], float]:
  """Returns what `work` returns, and the seconds that it takes once its programs are compiled."""
  work()
  start = time.monotonic()
  return work(), time.monotonic() - start


if __name__ == '__main__':
  sys.exit(main('ablation_filter', TITLE, run, add))
