"""The corpora of the quickstart: word problems by operation, held-out ones, and paragraphs."""

import dataclasses
import itertools
import re
from collections import Counter

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.numbers import find_numbers
from toolformer_jax.data.records import AnnotatedDocument, Document
from toolformer_jax.tokenizer import Tokenizer

OPERATIONS = '+-*/'
PROBLEMS = 48  # of each operation
HELD_OUT_PROBLEMS = 13  # of each operation, which the tuned model is tested on
MAX_PROBLEM_TOKENS = 88
MAX_ALIKE = 16  # problems that differ only in names and numbers
PARAGRAPHS, PARAGRAPH_TOKENS = 44, range(40, 97)


@dataclasses.dataclass(frozen=True)
class DerivedNumber:
  """A number in the solution of a problem that is the result of one operation.

  Attributes:
    operation: one of OPERATIONS, on two numbers that the text states before.
    value: the number.
    start: its first character in the text.
  """

  operation: str
  value: float
  start: int


def word_problems(tokenizer: Tokenizer) -> tuple[list[Document], list[Document]]:
  """Returns the problems to annotate and those that are held out.

  Both have the same number of problems for each operation. The generator has few templates, so that
  most held-out problems differ from annotated ones only in names and numbers.
  """
  held_out, annotated, alike = [], [], Counter()
  left = {name: Counter(dict.fromkeys(OPERATIONS, count))
          for name, count in (('held out', HELD_OUT_PROBLEMS), ('annotated', PROBLEMS))}
  for document in read_corpus('word-problems'):
    derived = derived_number(document.text)
    if derived is None or len(tokenizer.encode(document.text)) > MAX_PROBLEM_TOKENS:
      continue
    template = re.sub(r'\d[\d,.]*|[A-Z]\w*', '#', document.text)
    alike[template] += 1
    for name, chosen in (('held out', held_out), ('annotated', annotated)):
      if alike[template] <= MAX_ALIKE and left[name][derived.operation]:
        left[name][derived.operation] -= 1
        chosen.append(document)
        break
  return annotated, held_out


def paragraphs(tokenizer: Tokenizer) -> list[Document]:
  """Returns random paragraphs of Wikipedia of a similar length."""
  fitting = (document for document in read_corpus('wikipedia-sample')
             if len(tokenizer.encode(document.text)) in PARAGRAPH_TOKENS)
  return sorted(fitting, key=lambda document: stable_hash(document.id))[:PARAGRAPHS]


def derived_number(problem: str) -> DerivedNumber | None:
  """Returns the first number of the solution that a call can compute, and a model can hardly guess.

  Exactly one operation makes it of two numbers that the text states before it, and the operands or
  the result are large: the model guesses smaller numbers without a call, so that a call can hardly
  lower its loss. In a text without a question, all of it is the solution.
  """
  solution, stated = problem.rfind('? '), []
  for number in find_numbers(problem):
    value = round(float(abs(number.value)), 2)
    if number.start > solution and value not in stated:
      found = {operation for pair in itertools.combinations(stated, 2)
               for operation, result in hard_results(max(pair), min(pair)).items()
               if result == value}
      if len(found) == 1:
        return DerivedNumber(found.pop(), value, number.digits_start)
    stated.append(value)
  return None


def hard_results(large: float, small: float) -> dict[str, float]:
  """Returns the results of the operations that are hard to guess, rounded to two decimals."""
  results = {'+': large + small, '-': large - small, '*': large * small,
             '/': large / small if small else 0.0}
  hard = {'+': small >= 100, '-': large >= 100 and small >= 20, '*': large * small >= 100,
          '/': large >= 100 and results['/'] >= 20}
  return {operation: round(result, 2) for operation, result in results.items()
          if hard[operation] and small > 1}


def operation_of(record: AnnotatedDocument) -> str:
  """Returns the operation of a text's first call; '' if it has none or several."""
  found = set(re.findall(r'(?<=[\d)]) *([-+*/])', record.calls[0].argument))
  return found.pop() if len(found) == 1 else ''
