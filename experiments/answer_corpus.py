"""Makes a corpus for the calculator from GSM8K's training problems; each text ends with the answer.

    python experiments/answer_corpus.py --data ../shared/data/gsm8k/train.jsonl.gz --output F

A text is a problem and its solution without equations, in which `The answer is N.` replaces the
last statement, as the prompts of the evaluation end. Results with this corpus have to be reported
with this reformatting. It contains no calls and no equations. Dev questions, long texts, and
solutions that do not end with exactly one equation are left out.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator

from toolformer_jax import cli
from toolformer_jax.data.equations import has_arithmetic_left
from toolformer_jax.data.gsm8k import Problem, collapse_gsm8k, is_dev, read_gsm8k
from toolformer_jax.data.records import Document, write_records

SOURCE = 'GSM8K train, ending with the answer'


def main() -> None:
  """Writes the corpus."""
  args = parse(__doc__ or '')
  write_records(args.output, answered(args.data, args.max_words))


def parse(description: str) -> argparse.Namespace:
  """Parses the options of a script that writes such texts."""
  parser = cli.Parser(description=description,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', type=pathlib.Path, required=True, metavar='F')
  parser.add_argument('--max_words', type=int, default=60, metavar='N', help='of a text')
  parser.add_argument('--output', type=pathlib.Path, required=True, metavar='F')
  return parser.parse_args()


def answered(path: pathlib.Path, max_words: int) -> Iterator[Document]:
  """Yields the problems of a file that can be written in this form."""
  return (document for _, document in with_problems(path, max_words))


def with_problems(path: pathlib.Path, max_words: int) -> Iterator[tuple[Problem, Document]]:
  """Yields the same texts, each with its problem."""
  for number, problem in enumerate(read_gsm8k(path)):
    text = None if is_dev(problem.question) else with_answer(problem)
    if text and len(text.split()) <= max_words:
      yield problem, Document(f'gsm8k-{number:05}', text, source=SOURCE)


def with_answer(problem: Problem) -> str | None:
  """Returns a problem in this form; None if it cannot be written so."""
  solution, _, answer = problem.answer.rpartition('####')
  *statements, last = solution.strip().split('\n')
  told = collapse_gsm8k('\n'.join(statements))[0]
  if last.count('<<') != 1 or has_arithmetic_left(told):
    return None
  words = f'{problem.question} {told}'.split()
  return f'{" ".join(words)} The answer is {answer.strip().replace(",", "")}.'


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
