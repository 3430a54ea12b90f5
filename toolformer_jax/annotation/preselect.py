"""Which documents are worth annotating for a tool: the heuristics of the paper, appendix A."""

import bisect
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.numbers import find_numbers, stands_alone
from toolformer_jax.data.records import Document
from toolformer_jax.tools.language import identify_language

WINDOW_WORDS = 100
# Of the documents that have three numbers and nothing else, the paper keeps 1%.
KEPT_OF_NUMEROUS = 0.01
# A chunk of text that may be foreign, and how sure of that one has to be.
CHUNK_WORDS = 10
FOREIGN_CONFIDENCE = 0.8
_MAX_DIGITS = 15  # longer ones are identifiers, and no float is exact for them

_CHUNK_WORD = re.compile(r'[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+')
_ANNOUNCED_NUMBER = re.compile(
  r'(?:=|\b(?:equals|equal to|total of|average of)\b)\s*[$£€]?\d', re.IGNORECASE
)


def preselect(tool: str, document: Document, seed: int) -> bool:
  """Tells whether `document` is worth annotating for `tool`; tools without a rule take all.

  `seed` decides about the documents of which only a random part is kept.
  """
  rule = _RULES.get(tool)
  return rule is None or rule(document, seed)


def has_arithmetic(document: Document, seed: int) -> bool:
  """Tells whether the calculator may be of use in `document` (paper, appendix A).

  Either three numbers within `WINDOW_WORDS` words, one of them, to two decimals, the sum,
  difference, product or quotient of the other two; or a number after `=`, `equals`, `equal to`,
  `total of` or `average of`; or, in a hundredth of the documents, three numbers anywhere.
  """
  if _ANNOUNCED_NUMBER.search(document.text):
    return True
  positions, values = _numbers(document.text)
  if len(values) < 3:
    return False
  return _has_result(positions, values) or _draw(document.id, seed) < KEPT_OF_NUMEROUS


def has_date(document: Document, seed: int) -> bool:
  """Tells whether the calendar can answer for `document`; readers take its date from its URL."""
  return document.date is not None


def has_translation(document: Document, seed: int) -> bool:
  """Tells whether a translator may be of use in `document` (paper, appendix A).

  Some chunk of ten words is in another language, surely enough, and there is English before and
  after it. Chunks without letters do not count; a Chinese or Japanese character is a word.
  """
  words = _CHUNK_WORD.findall(document.text)
  chunks = (' '.join(words[at:at + CHUNK_WORDS]) for at in range(0, len(words), CHUNK_WORDS))
  languages = [found for found in map(identify_language, chunks) if found[0]]
  english = [at for at, (language, _) in enumerate(languages) if language == 'en']
  return any(language != 'en' and confidence > FOREIGN_CONFIDENCE
             for language, confidence in languages[english[0]:english[-1]]) if english else False


_RULES: dict[str, Callable[[Document, int], bool]] = {
  'Calculator': has_arithmetic,
  'Calendar': has_date,
  'MT': has_translation,
}


def _draw(document_id: str, seed: int) -> float:
  """Returns a number in [0, 1) that depends on the document and the seed alone."""
  return int.from_bytes(stable_hash(f'{seed} {document_id}')[:8], 'big') / 2**64


def _numbers(text: str) -> tuple[list[int], list[float]]:
  """Returns the numbers of `text`: the index of the word that each stands in, and its value."""
  words = [match.start() for match in re.finditer(r'\S+', text)]
  positions, values = [], []
  for number in find_numbers(text):
    if stands_alone(text, number) and len(number.digits) <= _MAX_DIGITS:
      positions.append(bisect.bisect_right(words, number.digits_start) - 1)
      values.append(round(float(abs(number.value)), 2))
  return positions, values


def _has_result(positions: Sequence[int], values: Sequence[float]) -> bool:
  """Tells whether a number is the result of an operation on two others near it.

  Looks at the pairs within a window only: time is linear in the text.
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
  """Returns what the four operations make of two numbers, in either order, to two decimals."""
  # Division by zero has no result; 0 stands for it, which a * b is then as well.
  exact = (a + b, abs(a - b), a * b, a / b if b else 0.0, b / a if a else 0.0)
  return {round(value, 2) for value in exact}
