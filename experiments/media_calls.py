"""Tells whether the filter keeps calls to tools for media, and whether their results are right.

    toolformer annotate --corpus D/text.jsonl --tools ocr --output_dir R/text ...
    python experiments/media_calls.py --corpus D --runs R

D is the folder that media_corpus.py made. R has a run of `toolformer annotate` for each part, named
for it. A result is right if it has all words of one of the answers that the corpus states.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from media_components import words
from media_corpus import MAKERS

from toolformer_jax import cli
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.data.records import ScoredCall
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.runtime.paths import as_path

_HEADER = ['part', 'tool', 'texts', 'calls', 'with a result', 'kept', 'texts with a kept call',
           'mean gain of all', 'mean gain of kept', 'kept and right', 'all with a result, right',
           'kept before the end of the answer']


def main() -> None:
  """Prints a table of the runs."""
  parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--corpus', required=True, type=pathlib.Path, metavar='D')
  parser.add_argument('--runs', required=True, type=pathlib.Path, metavar='D')
  args = parser.parse_args()
  rows: list[list[object]] = [list(_HEADER)]
  best: list[str] = []
  for part in MAKERS:
    if (args.runs / part).is_dir():
      for row, examples in of_run(part, args.corpus, RunReader(as_path(args.runs / part))):
        rows.append(row)
        best += examples
  print(markdown_table(rows), *best, sep='\n')


def of_run(part: str, corpus: pathlib.Path, run: RunReader
           ) -> Iterator[tuple[list[object], list[str]]]:
  """Yields for each tool of a run a row of the table, and the calls with the largest gains."""
  lines = (corpus / f'{part}.jsonl').read_text('utf-8').splitlines()
  rows = {row['id']: row for row in map(json.loads, lines)}
  offsets = run.tokenizer().character_offsets
  for tool, settings in run.tool_settings().items():
    sampled, scored = list(run.calls(tool, 'sample')), list(run.calls(tool, 'filter'))
    kept = [call for call in scored
            if call.loss_call is not None and call.gain >= settings['tau_f']]
    before = [in_time(call, rows[call.document_id], offsets) for call in kept]
    best = sorted(kept, key=lambda call: -call.gain)[:3]
    yield ([part, tool, len(rows), len(sampled), len(scored), len(kept),
            len({call.document_id for call in kept}), mean(scored), mean(kept),
            right(kept, rows), right(scored, rows), share(before)],
           [f'{part}: {call.gain:.2f} {call.tool}({call.argument}) -> {call.result}'
            for call in best])


def in_time(call: ScoredCall, row: Mapping[str, Any],
            offsets: Callable[[str], Sequence[int]]) -> bool:
  """Returns whether a call stands before the last word of the answer has been read."""
  text, answer = row['text'], row['answers'][0]
  last_word = text.index(answer) + len(answer) - len(answer.split()[-1])
  return [*offsets(text), len(text)][call.position] <= last_word


def mean(calls: Sequence[ScoredCall]) -> str:
  """Returns the mean gain of calls, in nats."""
  return f'{statistics.mean(call.gain for call in calls):.2f}' if calls else '-'


def right(calls: Sequence[ScoredCall], rows: Mapping[str, Any]) -> str:
  """Returns how many calls have a right result."""
  return share([is_right(call.result or '', rows[call.document_id]['answers']) for call in calls])


def is_right(result: str, answers: Sequence[str]) -> bool:
  """Returns whether a text has all words of one of the answers, but for `a` and `an`."""
  found = {*words(result)}
  return any({*words(answer)} - {'a', 'an'} <= found for answer in answers)


def share(those: Sequence[bool]) -> str:
  """Returns a share in percent."""
  return f'{100 * sum(those) / len(those):.0f}%' if those else '-'


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
