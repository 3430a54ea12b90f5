"""The heuristics that select the documents in which a tool may help (paper, appendix A)."""

import bisect
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.numbers import find_numbers, stands_alone
from toolformer_jax.data.records import Document
from toolformer_jax.tools.language import identify_language

WINDOW_WORDS = 100
# The share that is kept of the documents with three numbers and no other sign of arithmetic.
KEPT_WITH_NUMBERS = 0.01
# Size of the pieces whose language is identified, and the least confidence of a foreign one.
CHUNK_WORDS = 10
FOREIGN_CONFIDENCE = 0.8
_MAX_DIGITS = 15  # longer numbers are identifiers, and have no exact float

_CHUNK_WORD = re.compile(r'[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+')
_ANNOUNCED_NUMBER = re.compile(
  r'(?:=|\b(?:equals|equal to|total of|average of)\b)\s*[$£€]?\d', re.IGNORECASE
)


def preselect(tool: str, document: Document, seed: int) -> bool:
  """Tells whether calls to `tool` may help in `document`; true for tools without a heuristic.

  Args:
    tool: the tool's name, spelled as in calls.
    document: the text, with its date.
    seed: of the choice among documents of which a heuristic keeps a random part.
  """
  heuristic = _HEURISTICS.get(tool)
  return heuristic is None or heuristic(document, seed)


def has_arithmetic(document: Document, seed: int) -> bool:
  """Tells whether the calculator may help in `document` (paper, appendix A).

  One of these must hold: three numbers are within `WINDOW_WORDS` words, and one of them is the sum,
  difference, product or quotient of the other two, to two decimals; a number follows `=`, `equals`,
  `equal to`, `total of` or `average of`; there are three numbers anywhere, and the document is
  among the `KEPT_WITH_NUMBERS` of such documents that are chosen at random by `seed`.
  """
  if _ANNOUNCED_NUMBER.search(document.text):
    return True
  positions, values = _numbers(document.text)
  if len(values) < 3:
    return False
  return _has_result(positions, values) or _uniform(document.id, seed) < KEPT_WITH_NUMBERS


def has_date(document: Document, seed: int) -> bool:
  """Tells whether the document has a date, which readers of corpora take from its URL."""
  return document.date is not None


def has_translation(document: Document, seed: int) -> bool:
  """Tells whether a translator may help in `document` (paper, appendix A).

  A chunk of ten words must be in another language with a confidence above `FOREIGN_CONFIDENCE`, and
  have chunks in English before and after it. Chunks without letters are ignored. A Chinese or
  Japanese character counts as a word.
  """
  words = _CHUNK_WORD.findall(document.text)
  chunks = (' '.join(words[at:at + CHUNK_WORDS]) for at in range(0, len(words), CHUNK_WORDS))
  languages = [found for found in map(identify_language, chunks) if found[0]]
  english = [at for at, (language, _) in enumerate(languages) if language == 'en']
  return any(language != 'en' and confidence > FOREIGN_CONFIDENCE
             for language, confidence in languages[english[0]:english[-1]]) if english else False


_HEURISTICS: dict[str, Callable[[Document, int], bool]] = {
  'Calculator': has_arithmetic,
  'Calendar': has_date,
  'MT': has_translation,
}


def _uniform(document_id: str, seed: int) -> float:
  """Returns a pseudo-random number in [0, 1), a hash of the document's id and the seed."""
  return int.from_bytes(stable_hash(f'{seed} {document_id}')[:8], 'big') / 2**64


def _numbers(text: str) -> tuple[list[int], list[float]]:
  """Returns the numbers of `text` in order: the index of the word of each, and its value."""
  words = [match.start() for match in re.finditer(r'\S+', text)]
  positions, values = [], []
  for number in find_numbers(text):
    if stands_alone(text, number) and len(number.digits) <= _MAX_DIGITS:
      positions.append(bisect.bisect_right(words, number.digits_start) - 1)
      values.append(round(float(abs(number.value)), 2))
  return positions, values


def _has_result(positions: Sequence[int], values: Sequence[float]) -> bool:
  """Tells whether a number is the result of an operation on two others in the same window.

  Only pairs within a window are considered, so that the time is linear in the length of the text.
  """
  places = defaultdict(list)
  for number, value in enumerate(values):
    places[value].append(number)
  for left, position in enumerate(positions):
    end = bisect.bisect_left(positions, position + WINDOW_WORDS, lo=left)
    for right in range(left + 1, end):
      begin = bisect.bisect_left(positions, positions[right] - WINDOW_WORDS + 1)
      for result in _results(values[left], values[right]):
        near = places.get(result)
        if near is None:
          continue
        first = bisect.bisect_left(near, begin)
        # Among the first three places at most two are those of the operands.
        if any(n < end and n not in (left, right) for n in near[first:first + 3]):
          return True
  return False


def _results(a: float, b: float) -> set[float]:
  """Returns the results of the four operations on two numbers in either order, to two decimals."""
  # Division by zero has no result. The 0 in its place adds nothing: a * b is 0 too.
  exact = (a + b, abs(a - b), a * b, a / b if b else 0.0, b / a if a else 0.0)
  return {round(value, 2) for value in exact}
