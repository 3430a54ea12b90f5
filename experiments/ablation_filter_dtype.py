"""The filter in a fast dtype: gains, kept calls and time, against float32.

    python experiments/ablation_filter_dtype.py --run D --checkpoint smollm2-135m --documents 500

D is one or more output folders of `toolformer annotate` with that model. Scores their calls in
float32 and in each of --dtypes (AnnotationConfig.filter_dtype), window by window in turn, and what
has to be verified with --margin (AnnotationConfig.verify_margin) again in float32. Reports how far
the gains differ, which calls are kept at each threshold with and without verification, and seconds;
windows in which a program was compiled are not timed.
"""

import argparse
import pathlib
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import table2_api_calls
from ablation_filter import documents_of
from reproduce import main

from toolformer_jax.annotation.config import THRESHOLDS
from toolformer_jax.annotation.filter import score_calls
from toolformer_jax.annotation.merge import merge
from toolformer_jax.annotation.verified_filter import undecided
from toolformer_jax.calls import CallSyntax
from toolformer_jax.checkpoints.loading import ModelConfig, load_model
from toolformer_jax.commands import options
from toolformer_jax.data.records import Document, ScoredCall
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.runtime.markdown import markdown_table

TITLE = 'Ablation: the dtype of the filter'
_WINDOW = 8  # documents


@dataclass
class Scores:
  """What was scored so far.

  Attributes:
    calls: in each dtype, all calls in the same order.
    seconds: by dtype, and by dtype and threshold those of verification.
    timed: number of calls in the windows that were timed.
  """

  calls: dict[str, list[ScoredCall]] = field(default_factory=lambda: defaultdict(list))
  seconds: Counter = field(default_factory=Counter)
  timed: int = 0


def add(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--run', type=pathlib.Path, required=True, nargs='+', metavar='D',
                      help='output folders of annotate')
  options.add_checkpoint(parser)
  parser.add_argument('--documents', type=int, default=500, metavar='N', help='with calls')
  parser.add_argument('--dtypes', nargs='+', default=['bfloat16', 'int8'])
  parser.add_argument('--margin', type=float, default=0.2, help='in nats')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> str:
  """Scores the calls of all runs and compares."""
  config = options.configuration(args)
  calls, documents = read(args.run, args.documents)
  if args.dry_run:
    return f'# {TITLE}\n\nScores {len(calls)} calls in {len(documents)} texts.'
  model = load_model(args.checkpoint, config=ModelConfig()).for_inference()
  models = {'float32': model} | {dtype: model.to_dtype(dtype) for dtype in args.dtypes}
  scores = Scores()
  for first in range(0, len(documents), _WINDOW):
    window = documents[first:first + _WINDOW]
    inside = {document.id for document in window}
    score_window(models, [call for call in calls if call.document_id in inside], window,
                 args.margin, config.syntax, scores)
    print(f'{first + len(window)} of {len(documents)} texts', file=sys.stderr, flush=True)
  return '\n\n'.join([
      f'# {TITLE}', f'{len(calls)} calls in {len(documents)} texts; {scores.timed} of them timed.',
      markdown_table(gain_rows(scores)),
      markdown_table(kept_rows(scores, documents, args.margin))])


def read(runs: Sequence[pathlib.Path], count: int) -> tuple[list[ScoredCall], list[Document]]:
  """Returns the scored calls in the first `count` texts that have some; ids name the run as well.
  """
  calls, documents = [], {}
  for number, folder in enumerate(runs):
    def named(record, name, number=number):
      return type(record)(**{**vars(record), name: f'{number}/{getattr(record, name)}'})
    documents |= {one.id: one for one in (named(d, 'id') for d in documents_of(folder))}
    for of_tool in table2_api_calls.scored_by_tool(folder).values():
      calls += [named(call, 'document_id') for call in of_tool]
  chosen = [*dict.fromkeys(call.document_id for call in calls)][:count]
  known = set(chosen)
  return ([call for call in calls if call.document_id in known],
          [documents[name] for name in chosen])


def score_window(models: dict[str, LanguageModel], calls: Sequence[ScoredCall],
                 window: Sequence[Document], margin: float, syntax: CallSyntax,
                 scores: Scores) -> None:
  """Scores the calls of a window in all dtypes, and again what verification needs."""
  seconds = Counter()
  def timed(name, dtype, some):
    begin = time.monotonic()
    scored, _ = score_calls(some, window, model=models[dtype], syntax=syntax)
    seconds[name] += time.monotonic() - begin
    return scored
  with CompileCounter() as counter:
    for dtype in models:
      scored = timed(dtype, dtype, calls)
      scores.calls[dtype] += scored
      for t in THRESHOLDS if dtype != 'float32' else ():
        timed((dtype, t), 'float32', [scored[i] for i in undecided(scored, t, margin)])
  if not counter.programs:
    scores.seconds.update(seconds)
    scores.timed += len(calls)


def gain_rows(scores: Scores) -> list[list[str]]:
  """Returns a table of differences of gains, with a row for each dtype."""
  exact = np.array([call.gain for call in scores.calls['float32']])
  rows = [['dtype', 'difference of gains, mean (nats)', '99%', 'largest', 'rank correlation',
           'seconds', 'of float32']]
  for dtype, calls in scores.calls.items():
    gains = np.array([call.gain for call in calls])
    off = np.abs(gains - exact)
    ranks = [np.argsort(np.argsort(one)) for one in (exact, gains)]
    whole = scores.seconds['float32'] or float('nan')
    rows.append([dtype, f'{off.mean():.4f}', f'{np.quantile(off, 0.99):.3f}', f'{off.max():.3f}',
                 f'{np.corrcoef(*ranks)[0, 1]:.4f}', f'{scores.seconds[dtype]:.1f}',
                 f'{scores.seconds[dtype] / whole:.2f}'])
  return rows


def kept_rows(scores: Scores, documents: Sequence[Document], margin: float) -> list[list[str]]:
  """Returns a table of kept calls, with a row for each dtype and threshold."""
  exact = scores.calls['float32']
  rows = [['dtype', 'gain at least', 'kept in float32', 'in the dtype', 'by both',
           f'scored again, margin {margin:g}', 'kept then', 'by both', 'seconds of float32']]
  for dtype, calls in scores.calls.items():
    for t in THRESHOLDS if dtype != 'float32' else ():
      again = {*undecided(calls, t, margin)}
      verified = [exact[i] if i in again else call for i, call in enumerate(calls)]
      wanted, fast, found = (kept(some, documents, t) for some in (exact, calls, verified))
      whole = scores.seconds['float32'] or float('nan')
      share = (scores.seconds[dtype] + scores.seconds[dtype, t]) / whole
      rows.append([dtype, str(t), str(len(wanted)), str(len(fast)), str(len(wanted & fast)),
                   f'{len(again) / len(calls):.1%}', str(len(found)), str(len(wanted & found)),
                   f'{share:.2f}'])
  return rows


def kept(calls: Sequence[ScoredCall], documents: Sequence[Document], tau_f: float) -> set[tuple]:
  """Returns the calls that C* would contain."""
  records, _ = merge(documents, calls, dict.fromkeys({call.tool for call in calls}, tau_f))
  return {(call.document_id, call.tool, call.position, call.argument)
          for record in records for call in record.calls}


if __name__ == '__main__':
  sys.exit(main('ablation_filter_dtype', TITLE, run, add))
