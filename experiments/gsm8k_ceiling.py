"""Texts with the calls that GSM8K's authors made: the most that calls of one's own could reach.

    python experiments/gsm8k_ceiling.py --data ../shared/data/gsm8k/train.jsonl.gz --output F

The texts are those of answer_corpus.py. Before the answer of each stands the last equation of its
solution, GSM8K's own `<<48+24=72>>`, as a calculator call: no model proposed it and no filter chose
it, so that a model trained on these texts is no Toolformer. It tells how much of a score is lost by
the calls that a Toolformer learns from, and how much by the model and the texts.
"""

import pathlib
import re
import sys
from collections.abc import Iterator

from answer_corpus import parse, with_problems

from toolformer_jax import cli
from toolformer_jax.checkpoints.pretrained import pretrained_tokenizer
from toolformer_jax.data.gsm8k import Problem
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall, write_records
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.calculator import Calculator

MODEL = 'smollm2-135m'
BEFORE_ANSWER = 'The answer is'
_EQUATION = re.compile(r'<<([^<>=]*)=[^<>]*>>')
_OPERATOR = re.compile(r'(?<=[\d)%]) *([-+*/]) *')


def main() -> None:
  """Writes the texts."""
  args = parse(__doc__ or '')
  write_records(args.output, annotated(args.data, args.max_words, pretrained_tokenizer(MODEL)))


def annotated(path: pathlib.Path, max_words: int, tokenizer: Tokenizer
              ) -> Iterator[AnnotatedDocument]:
  """Yields the texts whose last equation the calculator computes to the answer."""
  for problem, document in with_problems(path, max_words):
    if call := last_equation(problem, document, tokenizer):
      yield AnnotatedDocument(document, (call,))


def last_equation(problem: Problem, document: Document, tokenizer: Tokenizer) -> ScoredCall | None:
  """Returns the call; None if its result is not the answer that the text states."""
  before, _, answer = document.text.rpartition(BEFORE_ANSWER)
  expression = _OPERATOR.sub(r' \1 ', _EQUATION.findall(problem.answer)[-1].strip())
  try:
    result = Calculator()(expression, Context(document.id))
  except ToolError:
    return None
  if result != answer.strip(' .'):
    return None
  end = len(before) + len(BEFORE_ANSWER)
  return ScoredCall(document.id, 'Calculator', expression,
                    tokenizer.character_offsets(document.text).index(end), 1.0, result)


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
