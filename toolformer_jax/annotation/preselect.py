"""The heuristics that select the texts in which a tool may help (paper, appendix A.1).

Those of the tools for media, which the paper does not have, ask for a medium that the tool reads.

They judge whole documents, before these are split, and measure distances in tokens of the model.
"""

import bisect
import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set

from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.numbers import find_numbers, stands_alone
from toolformer_jax.data.records import Document
from toolformer_jax.tools.language import identify_language

WINDOW_TOKENS = 100
# The share that is kept of the documents with three numbers and no other sign of arithmetic.
KEPT_WITH_NUMBERS = 0.01
# Size of the chunks whose language is identified, and the least confidence of a foreign one.
CHUNK_TOKENS = 10
FOREIGN_CONFIDENCE = 0.8
_MAX_DIGITS = 15  # longer numbers are identifiers, and have no exact float

_HANDLE = re.compile(r'\b(image|audio|video)\s+[1-9]', re.IGNORECASE)
_PARAGRAPH = re.compile(r'[^\n]+')  # the paragraphs of CCNet are lines
_ANNOUNCED_NUMBER = re.compile(
  r'(?:=|\b(?:equals|equal to|total of|average of)\b)\s*[$£€]?\d', re.IGNORECASE
)

# From a text to the number of characters before each of its tokens.
TokenOffsets = Callable[[str], Sequence[int]]
Spans = list[tuple[int, int]]


def with_heuristic(tools: Iterable[str], preselect: bool = True) -> list[str]:
  """Returns those of `tools`, spelled as in calls, whose heuristic is used; sorted.

  Args:
    tools: names of tools.
    preselect: use the heuristics of the paper too. Those of media always are: a tool has nothing
      to read in a text without a medium.
  """
  heuristics = _HEURISTICS if preselect else _OF_MEDIA
  return sorted(tool for tool in tools if tool in heuristics)


def preselect(tools: Iterable[str], document: Document, token_offsets: TokenOffsets, seed: int
              ) -> dict[str, Spans]:
  """Returns where in `document` calls may help, for each of `tools`, which have heuristics.

  Args:
    tools: names of tools.
    document: the whole text, with its date.
    token_offsets: of the model's tokenizer.
    seed: of the choice among documents of which a heuristic keeps a random part.

  Returns:
    for each tool, the parts of the text that pass its heuristic, as (start, end) in characters.
  """
  return {tool: _HEURISTICS[tool](document, token_offsets, seed) for tool in tools}


def arithmetic_spans(document: Document, token_offsets: TokenOffsets, seed: int) -> Spans:
  """Returns the whole of a document in which the calculator may help, or nothing.

  One of these must hold: three numbers are within `WINDOW_TOKENS` tokens, and one of them is the
  sum, difference, product or quotient of the other two, to two decimals; a number follows `=`,
  `equals`, `equal to`, `total of` or `average of`; there are three numbers anywhere, and the
  document is among the `KEPT_WITH_NUMBERS` of such documents that are chosen at random by `seed`.
  """
  text = document.text
  if _ANNOUNCED_NUMBER.search(text):
    return [(0, len(text))]
  chars, values = _numbers(text)
  if len(values) < 3:
    return []
  if _uniform(document.id, seed) >= KEPT_WITH_NUMBERS:
    offsets = token_offsets(text)
    if not _has_result([bisect.bisect_right(offsets, char) for char in chars], values):
      return []
  return [(0, len(text))]


def dated_spans(document: Document, token_offsets: TokenOffsets, seed: int) -> Spans:
  """Returns the whole of a document with a date, which readers of corpora take from its URL."""
  return [(0, len(document.text))] if document.date is not None else []


def translation_spans(document: Document, token_offsets: TokenOffsets, seed: int) -> Spans:
  """Returns the paragraphs in which a translator may help.

  A chunk of ten tokens must be in another language with a confidence above `FOREIGN_CONFIDENCE`,
  and have chunks in English before and after it. Chunks without letters are ignored.
  """
  return [match.span() for match in _PARAGRAPH.finditer(document.text)
          if _has_foreign_chunk(match[0], token_offsets(match[0]))]


def _has_foreign_chunk(paragraph: str, offsets: Sequence[int]) -> bool:
  cuts = [*offsets[::CHUNK_TOKENS], len(paragraph)]
  chunks = (paragraph[start:end] for start, end in itertools.pairwise(cuts))
  languages = [found for found in map(identify_language, chunks) if found[0]]
  english = [at for at, (language, _) in enumerate(languages) if language == 'en']
  return any(language != 'en' and confidence > FOREIGN_CONFIDENCE
             for language, confidence in languages[english[0]:english[-1]]) if english else False


def media_spans(kinds: Set[str], document: Document, token_offsets: TokenOffsets, seed: int
                ) -> Spans:
  """Returns where a text names its media of some kinds, as `image 1`; nothing if it has none."""
  own = kinds & {medium.kind for medium in document.media}
  return [match.span() for match in _HANDLE.finditer(document.text) if match[1].lower() in own]


_OF_MEDIA: dict[str, Callable[[Document, TokenOffsets, int], Spans]] = {
  'Frames': functools.partial(media_spans, {'video'}),
  'OCR': functools.partial(media_spans, {'image'}),
  'Recognize': functools.partial(media_spans, {'image'}),
  'Transcribe': functools.partial(media_spans, {'audio', 'video'}),
}
_HEURISTICS: dict[str, Callable[[Document, TokenOffsets, int], Spans]] = {
  'Calculator': arithmetic_spans, 'Calendar': dated_spans, 'MT': translation_spans, **_OF_MEDIA}


def _uniform(document_id: str, seed: int) -> float:
  """Returns a pseudo-random number in [0, 1), a hash of the document's id and the seed."""
  return int.from_bytes(stable_hash(f'{seed} {document_id}')[:8], 'big') / 2**64


def _numbers(text: str) -> tuple[list[int], list[float]]:
  """Returns the numbers of `text` in order: the index of the first digit of each, and its value."""
  chars, values = [], []
  for number in find_numbers(text):
    if stands_alone(text, number) and len(number.digits) <= _MAX_DIGITS:
      chars.append(number.digits_start)
      values.append(round(float(abs(number.value)), 2))
  return chars, values


def _has_result(positions: Sequence[int], values: Sequence[float]) -> bool:
  """Tells whether a number is the result of an operation on two others in the same window.

  Positions count tokens.
  Only pairs within a window are considered, so that the time is linear in the length of the text.
  """
  places = defaultdict(list)
  for number, value in enumerate(values):
    places[value].append(number)
  for left, position in enumerate(positions):
    end = bisect.bisect_left(positions, position + WINDOW_TOKENS, lo=left)
    for right in range(left + 1, end):
      begin = bisect.bisect_left(positions, positions[right] - WINDOW_TOKENS + 1)
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
