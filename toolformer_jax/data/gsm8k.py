"""GSM8K (Cobbe et al. 2021): where a calculator call belongs in a solution, and its result."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from etils import epath

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.equations import collapse_equations, join_lines
from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.data.numbers import number_at, parse_number
from toolformer_jax.errors import UserError

_ANNOTATION = re.compile(r'<<([^<>]*)=([^<>=]*)>>')
_FINAL_ANSWER = re.compile(r'\n?####[^\n]*\s*$')
_FIRST_MARK = 0xE000  # Unicode's private use area: `equations` keeps a mark with its number
_MARK = re.compile('[\ue000-\uf8ff]')


@dataclass(frozen=True)
class Problem:
  """A problem of the data set, as its file has it."""

  question: str
  answer: str


@dataclass(frozen=True)
class Oracle:
  """A number of the collapsed text, at text[position_char:], and the expression that gives it."""

  position_char: int
  expression: str
  result: str


def read_gsm8k(path: epath.Path) -> Iterator[Problem]:
  """Yields the problems of a file in the official format, plain, .gz or .zst.

  Raises:
    UserError: the file cannot be read, or a line is not an object with a question and an answer.
  """
  for number, fields in read_objects(path):
    question, answer = fields.get('question'), fields.get('answer')
    if not isinstance(question, str) or not isinstance(answer, str):
      raise UserError(f'{path}:{number}: a problem needs the texts `question` and `answer`')
    yield Problem(question, answer)


def is_dev(question: str) -> bool:
  """Tells whether `question` is in the tenth of the problems that is never trained on."""
  return int.from_bytes(stable_hash(question), 'big') % 10 == 0


def collapse_gsm8k(answer: str) -> tuple[str, list[Oracle]]:
  """Returns an answer as prose without its equations, and the oracle of each number it derives.

  '48 / 2 = <<48/2=24>>24 clips' becomes '24 clips'. A number that is collapsed away, or differs
  from its annotation, has no oracle. `equations.has_arithmetic_left` tells whether something could
  not be collapsed.
  """
  annotations = []

  def mark(annotation: re.Match[str]) -> str:
    annotations.append(annotation.groups())
    return chr(_FIRST_MARK + len(annotations) - 1)

  marked = _ANNOTATION.sub(mark, _FINAL_ANSWER.sub('', answer))
  marked = collapse_equations(join_lines(marked))
  oracles = []
  for earlier, found in enumerate(_MARK.finditer(marked)):
    expression, result = annotations[ord(found[0]) - _FIRST_MARK]
    number = number_at(marked, found.end())
    if number and number.value == parse_number(result):
      begin = number.start if number.value < 0 else number.digits_start
      # The text that is returned lacks this mark and the earlier ones.
      oracles.append(Oracle(begin - earlier - 1, expression.strip(), marked[begin:number.end]))
  return _MARK.sub('', marked), oracles
