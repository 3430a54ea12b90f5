"""How good are the kept calculator calls? GSM8K knows where a call belongs and what it returns.

    python experiments/gsm8k_oracle.py --data ../shared/data/gsm8k/train.jsonl.gz

Takes the first N training questions that are not dev questions, with the inline equations of their
answers collapsed into statements; annotates them with the calculator by `quickstart.gin`; and
compares the kept calls with the `<<...>>` that the collapsing removed. A call is right if it stands
before a number that an equation gave and has that number as its result.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from toolformer_jax import cli
from toolformer_jax.annotation import report
from toolformer_jax.annotation.pipeline import Annotation
from toolformer_jax.annotation.prompts import CALCULATOR
from toolformer_jax.annotation.run_dir import MERGED, RunFolder
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.config import loading as configuration
from toolformer_jax.data.content_hash import identity
from toolformer_jax.data.gsm8k import collapse_gsm8k, is_dev, read_gsm8k
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall
from toolformer_jax.runtime.run_dir import software_versions
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.calculator import Calculator

MODEL = 'smollm2-135m'
_BETWEEN = 3  # characters that may stand between a call and its number: a blank, a currency sign


@dataclass(frozen=True)
class Solved:
  """A collapsed text and its derived numbers: where each begins, and what it is."""

  document: Document
  numbers: tuple[tuple[int, Fraction], ...]


def solved_problems(path: pathlib.Path, count: int) -> list[Solved]:
  """Returns the first `count` problems that may be annotated and can be collapsed."""
  def texts() -> Iterator[Solved]:
    for number, problem in enumerate(read_gsm8k(path)):
      if is_dev(problem.question):
        continue
      answer, oracles = collapse_gsm8k(problem.answer)
      if '=' in answer or not oracles:
        continue
      text = f'{problem.question} {answer}'
      offset = len(problem.question) + 1
      numbers = tuple((offset + oracle.position_char, Fraction(oracle.result.replace(',', '')))
                      for oracle in oracles)
      yield Solved(Document(f'gsm8k-{number:05}', text, source='GSM8K train'), numbers)
  return list(itertools.islice(texts(), count))


def is_right(call: ScoredCall, solved: Solved, tokenizer: Tokenizer) -> int | None:
  """Returns which of the derived numbers `call` gives, if any."""
  ids = tokenizer.encode(solved.document.text)
  at = len(tokenizer.decode(ids[:call.position]))
  for i, (begin, value) in enumerate(solved.numbers):
    if 0 <= begin - at <= _BETWEEN and abs(Fraction(call.result) - value) <= Fraction(1, 200):
      return i
  return None


def main() -> None:
  """Annotates and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--data', type=pathlib.Path, required=True)
  parser.add_argument('--documents', type=int, default=100)
  parser.add_argument('--output_dir', type=pathlib.Path, default=pathlib.Path('runs/gsm8k_oracle'))
  args = parser.parse_args()
  cli.log_to_stderr()
  config = configuration.load(['quickstart.gin'], ['AnnotationConfig.max_text_tokens = 400'])
  model = load_model(MODEL, config=config.model)
  problems = solved_problems(args.data, args.documents)
  plan = ToolPlan(Calculator(), config.tool_config('calculator'), CALCULATOR)
  annotation = Annotation(model, (plan,), config.annotation, config.executor, config.syntax)
  described = {**annotation.configuration(), 'checkpoint': identity(MODEL),
               'corpus': identity(str(args.data)), 'texts': len(problems)}
  with RunFolder(args.output_dir, described, software_versions()) as folder:
    annotation.run(lambda: [solved.document for solved in problems], folder)
    print(report.tool_table(report.tool_rows(folder, annotation.plans)))
    print(oracle_line(problems, list(folder.read_all(MERGED, AnnotatedDocument)), model.tokenizer))


def oracle_line(problems: list[Solved], annotated: list[AnnotatedDocument],
                tokenizer: Tokenizer) -> str:
  """Returns precision and recall of the kept calls in a sentence."""
  by_id = {solved.document.id: solved for solved in problems}
  hits = [(record.document.id, is_right(call, by_id[record.document.id], tokenizer))
          for record in annotated for call in record.calls]
  right = sum(number is not None for _, number in hits)
  found = len({hit for hit in hits if hit[1] is not None})
  derived = sum(len(solved.numbers) for solved in problems)
  precision = f'{right / len(hits):.2f}' if hits else 'undefined'
  return (f'\n{right} of {len(hits)} kept calls are right (precision {precision}); {found} of '
          f'{derived} derived numbers are found (recall {found / derived:.3f}).')


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
