"""A corpus for the calculator: solved word problems that state derived numbers, not derivations.

The problems and solutions come from the `gsm_symbolic` generator of reasoning-gym (Apache-2.0),
whose templates were made from 100 GSM8K *test* questions: never evaluate a model on GSM8K that was
trained on this corpus.
"""

import re
from collections.abc import Iterator

from toolformer_jax.data.equations import (
  collapse_equations,
  has_arithmetic_left,
  join_lines,
)
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError

SOURCE = 'reasoning-gym gsm_symbolic'
_INSTRUCTION = ' Give the result as your final answer. Do not include units.'
_FINAL_ANSWER = re.compile(r'\n#### .*\s*$')
# Mistakes of the templates: lists and fragments; a number as its own reason; a factor without
# 'times'; a sale of money.
_AWKWARD = re.compile(
  r'•|\n *- |step by step|\bMinus\b|\w:\d|because [$£€]?\d|\d as many|\d (?:the|of a) |time\(s\)'
  r'|sells [$£€]'
)
_CURRENCIES = frozenset('$£€')
_ROUND_FLOAT = re.compile(r'(?<=\d)\.0(?!\d)')
_RATE = re.compile(r'(\d ?[a-z]*)/([a-z]+)')


def generate(size: int, seed: int) -> Iterator[Document]:
  """Draws `size` problems and yields those that read as prose; the same ones for the same seed.

  A text is a question and its solution. A problem is left out if an equation of its solution
  cannot be collapsed, if it is not prose, or if it was drawn before.

  Raises:
    UserError: reasoning-gym is not installed.
  """
  try:
    import reasoning_gym  # an optional package: nothing else needs it
  except ImportError as error:
    raise UserError('generating word problems needs the extra quickstart: '
                    "pip install 'toolformer_jax[quickstart]'") from error
  drawn = set()
  problems = reasoning_gym.create_dataset('gsm_symbolic', size=size, seed=seed)
  for number, problem in enumerate(problems):
    text = solved(problem['question'], problem['metadata']['answer_cot'])
    if text and text not in drawn:
      drawn.add(text)
      yield Document(id=f'word-problems-{number:06}', text=text, source=SOURCE)


def solved(question: str, solution: str) -> str | None:
  """Returns a question and its solution as one paragraph; None if they are not prose."""
  question = question.removesuffix(_INSTRUCTION)
  collapsed = collapse_equations(_FINAL_ANSWER.sub('', solution))
  if _AWKWARD.search(question) or _AWKWARD.search(collapsed):
    return None
  if len(_CURRENCIES.intersection(question + solution)) > 1:  # a mistake of the template
    return None
  text = _ROUND_FLOAT.sub('', f'{join_lines(question)} {join_lines(collapsed)}')
  return None if has_arithmetic_left(text) else _RATE.sub(r'\1 per \2', text)
