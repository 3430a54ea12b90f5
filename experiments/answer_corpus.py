"""Makes a corpus for the calculator of GSM8K's training problems: questions and their answers.

    python experiments/answer_corpus.py --data ../shared/data/gsm8k/train.jsonl.gz --output F

A text is a problem of few steps and few words and, instead of its solution, `The answer is N.`:
the form in which the word problems of the evaluation are asked. That is a reformatting of the
corpus, to be declared beside what comes of it. Calls there are none in it, nor equations. Dev
questions are left out.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterator

from toolformer_jax import cli
from toolformer_jax.annotation.gsm8k import Problem, is_dev, read_gsm8k
from toolformer_jax.annotation.records import Document, write_records


def main() -> None:
  """Writes the corpus."""
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', type=pathlib.Path, required=True, metavar='F')
  parser.add_argument('--max_steps', type=int, default=2, metavar='N', help='of the solution')
  parser.add_argument('--max_words', type=int, default=50, metavar='N', help='of the question')
  parser.add_argument('--output', type=pathlib.Path, required=True, metavar='F')
  args = parser.parse_args()
  def chosen(problem: Problem) -> bool:
    return (not is_dev(problem.question) and 1 <= problem.answer.count('<<') <= args.max_steps
            and len(problem.question.split()) <= args.max_words)
  write_records(args.output, answered(args.data, chosen))


def answered(path: pathlib.Path, chosen: Callable[[Problem], bool]) -> Iterator[Document]:
  """Yields the chosen problems with their answers."""
  for number, problem in enumerate(read_gsm8k(path)):
    if chosen(problem):
      answer = problem.answer.rpartition('####')[2].strip().replace(',', '')
      question = ' '.join(problem.question.split())
      yield Document(f'gsm8k-{number:05}', f'{question} The answer is {answer}.',
                     source='GSM8K train')


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
