"""How good are the kept calculator calls? GSM8K knows where a call belongs and what it returns.

    python experiments/gsm8k_oracle.py --data ../shared/data/gsm8k/train.jsonl.gz

Takes the first N training questions that are not dev questions, with the inline equations of their
answers collapsed into statements. Annotates them with the calculator by the settings of
quickstart.gin, but with the prompt prompts/gsm8k.txt. Compares the kept calls with the `<<...>>`
that the collapsing removed: a call is right if it is before a number that an equation gave and
returns that number.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.annotation.report import tool_table
from toolformer_jax.config.loading import load
from toolformer_jax.data.content_hash import content_fingerprint
from toolformer_jax.data.gsm8k import collapse_gsm8k, is_dev, read_gsm8k
from toolformer_jax.data.numbers import parse_number
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer

MODEL = 'smollm2-135m'
_BETWEEN = 3  # at most so many characters between a call and its number: a space, a currency sign
_TOLERANCE = Fraction(1, 200)  # the calculator rounds to two decimals


@dataclass(frozen=True)
class Solved:
  """A collapsed text and its derived numbers: the index of the first character, and the value."""

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
      numbers = tuple((offset + oracle.position_char, parse_number(oracle.result))
                      for oracle in oracles)
      yield Solved(Document(f'gsm8k-{number:05}', text, source='GSM8K train'), numbers)
  return list(itertools.islice(texts(), count))


def is_right(call: ScoredCall, solved: Solved, tokenizer: Tokenizer) -> int | None:
  """Returns the index of the derived number that `call` returns; None if it returns none."""
  at = tokenizer.characters_before(solved.document.text, call.position)
  for i, (begin, value) in enumerate(solved.numbers):
    if 0 <= begin - at <= _BETWEEN and abs(parse_number(call.result) - value) <= _TOLERANCE:
      return i
  return None


def main() -> None:
  """Annotates and prints the table."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', type=pathlib.Path, required=True, metavar='F',
                      help='training problems of GSM8K')
  parser.add_argument('--documents', type=int, default=100, metavar='N')
  parser.add_argument('--output_dir', type=pathlib.Path, default=pathlib.Path('runs/gsm8k_oracle'))
  args = parser.parse_args()
  cli.log_to_stderr()
  problems = solved_problems(args.data, args.documents)
  if not problems:
    raise UserError(f'{args.data} has no problem that can be annotated')
  config = load(['quickstart.gin'], ["calculator/ToolConfig.prompt = 'prompts/gsm8k.txt'",
                                     'AnnotationConfig.max_text_tokens = 400'])
  model = tf_jax.load_model(MODEL, config=config.model)
  result = tf_jax.annotate(
      model, [solved.document for solved in problems], tools='calculator',
      output_dir=args.output_dir, config=config.annotation,
      tool_configs={'calculator': config.tool_config('calculator')},
      executor_config=config.executor, syntax=config.syntax,
      depends_on={'checkpoint': content_fingerprint(MODEL),
                  'corpus': content_fingerprint(args.data), 'texts': str(len(problems))})
  print(tool_table(list(result.tool_summaries.values())))
  print(oracle_line(problems, result.annotated, model.tokenizer))


def oracle_line(problems: Sequence[Solved], annotated: Sequence[AnnotatedDocument],
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
