"""Measures the components of the tools for media: accuracy, time of a call, memory.

    python experiments/media_components.py --corpus D [--speech jfk.flac --transcript T]
        [--items 60]

D is the folder that media_corpus.py made; its questions are used. Words are compared in lower case
without punctuation, numbers up to twelve as digits. Each tool runs in a process of its own, whose
largest memory is measured; its first call, which loads the models, is not among the times.
"""

import argparse
import json
import multiprocessing
import pathlib
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from toolformer_jax import cli
from toolformer_jax.media.table import MediaTable
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.media_tools import MediaToolbox
from toolformer_jax.tools.ocr import OcrConfig
from toolformer_jax.tools.registry import Toolbox

_PARTS = {'OCR': ('text', 'image 1'), 'Recognize': ('photo', 'image 1'),
          'Transcribe': ('speech', 'audio 1'), 'Frames': ('video', 'video 1')}
_NUMBERS = dict(zip(
    'one two three four five six seven eight nine ten eleven twelve'.split(),
    map(str, range(1, 13)), strict=True))


class Measured(NamedTuple):
  """What one tool did on one part."""

  tool: str
  score: str
  seconds: Sequence[float]
  first_s: float
  memory_mb: float
  examples: Sequence[tuple[str, str]]


def main() -> None:
  """Prints a table and some results."""
  parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--corpus', required=True, type=pathlib.Path, metavar='D')
  parser.add_argument('--items', type=int, default=60, metavar='N', help='of each part')
  parser.add_argument('--speech', type=pathlib.Path, metavar='F', help='a recording')
  parser.add_argument('--transcript', default='', metavar='TEXT', help='what is said in it')
  args = parser.parse_args()
  jobs = [(tool, args.corpus, args.items) for tool in _PARTS]
  spawn = multiprocessing.get_context('spawn')
  measured = []
  for job in jobs:  # a process each, so that the memory is that of one tool
    with spawn.Pool(1) as pool:
      measured.append(pool.apply(measure, job))
  print(table(measured))
  for one in measured:
    print('\n'.join(f'{one.tool}: {expected!r} -> {found!r}' for expected, found in one.examples))
  if args.speech:
    transcribe, = Toolbox().build(['transcribe'])
    found = transcribe('audio 1', Context(media=MediaTable.from_files([args.speech])))
    errors = edit_distance(words(args.transcript), words(found))
    print(f'{args.speech.name}: {errors} errors in {len(words(args.transcript))} words: {found}')


def measure(tool_name: str, corpus: pathlib.Path, limit: int) -> Measured:
  """Calls a tool on the media of its part."""
  part, handle = _PARTS[tool_name]
  toolbox = Toolbox(media_tools=MediaToolbox(ocr=OcrConfig(max_chars=2000)))
  tool, = toolbox.build([tool_name])
  lines = (corpus / f'{part}_questions.jsonl').read_text('utf-8').splitlines()[:limit]
  rows, found, seconds = [json.loads(line) for line in lines], [], []
  for row in rows:
    given = Context(media=MediaTable.from_files([corpus / row['media'][0]]))
    start = time.perf_counter()
    try:
      found.append(tool(handle, given))
    except ToolError as error:
      found.append(f'({error})')
    seconds.append(time.perf_counter() - start)
  memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return Measured(tool_name, _SCORES[tool_name](rows, found), seconds[1:], seconds[0], memory_mb,
                  [(row['content'], one) for row, one in zip(rows[:3], found, strict=False)])


def word_accuracy(rows: Sequence[dict[str, Any]], found: Sequence[str]) -> str:
  """Returns the share of the words of the pictures that are read, in any order."""
  right = total = 0
  for row, one in zip(rows, found, strict=True):
    wanted = Counter(words(row['content']))
    right += (wanted & Counter(words(one))).total()
    total += wanted.total()
  exact = sum(Counter(words(row['content'])) == Counter(words(one))
              for row, one in zip(rows, found, strict=True))
  return f'words {right / total:.1%} of {total}; pictures exact {exact} of {len(rows)}'


def top_1(rows: Sequence[dict[str, Any]], found: Sequence[str]) -> str:
  """Returns the share of pictures whose first label is a right one."""
  first = [re.sub(r' \d+%.*', '', one) for one in found]
  right = sum(label in row['answers'] for row, label in zip(rows, first, strict=True))
  return f'top-1 {right} of {len(rows)}'


def word_errors(rows: Sequence[dict[str, Any]], found: Sequence[str]) -> str:
  """Returns the word error rate, for the two synthesizers, which take turns."""
  rates = []
  for name, first in (('flite', 0), ('espeak-ng', 1)):
    pairs = [(words(row['answers'][0]), words(one))
             for row, one in zip(rows[first::2], found[first::2], strict=True)]
    errors = sum(edit_distance(*pair) for pair in pairs)
    rates.append(f'{name} {errors / sum(len(wanted) for wanted, _ in pairs):.1%}')
  return f'word errors {", ".join(rates)}'


def said_in_video(rows: Sequence[dict[str, Any]], found: Sequence[str]) -> str:
  """Returns the word error rate of what is said in videos."""
  said = [' '.join(re.findall('"(.*?)"', one)) for one in found]
  return word_errors(rows, said)


_SCORES = {'OCR': word_accuracy, 'Recognize': top_1, 'Transcribe': word_errors,
           'Frames': said_in_video}


def words(text: str) -> list[str]:
  """Returns the words of a text in lower case, numbers up to twelve as digits."""
  found = (word.strip(".'") for word in re.findall(r"[a-z0-9.']+", text.lower()))
  return [_NUMBERS.get(word, word) for word in found if word]


def edit_distance(wanted: Sequence[str], found: Sequence[str]) -> int:
  """Returns how many words have to be inserted, dropped or replaced."""
  row = list(range(len(found) + 1))
  for i, one in enumerate(wanted, 1):
    above, row = row, [i]
    for j, other in enumerate(found, 1):
      row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (one != other)))
  return row[-1]


def table(measured: Sequence[Measured]) -> str:
  """Returns the measurements as a table in Markdown."""
  rows = [['tool', 'accuracy', 'p50 ms', 'p99 ms', 'first call s', 'memory MB']]
  for one in measured:
    p50, p99 = (1000 * np.percentile(one.seconds, q) for q in (50, 99))
    rows.append([one.tool, one.score, f'{p50:.0f}', f'{p99:.0f}', f'{one.first_s:.1f}',
                 f'{one.memory_mb:.0f}'])
  return markdown_table(rows)


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
