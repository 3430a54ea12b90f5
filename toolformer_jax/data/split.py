"""Splits long texts: the sampling prompt contains a text twice, so that its length is bounded."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterator

from toolformer_jax.data.records import Document

# Where a text may be cut, the most natural places first: after blank lines, lines, sentences,
# words and, for words that are too long, characters.
_CUTS = tuple(map(re.compile, (
  r'\n\s*\n\s*', r'\n\s*', r'(?<=[.!?])["\'”’)\]]*\s+|(?<=[。！？])', r'\s+', r'(?<=.)(?=.)',
)))


def split_document(
    document: Document, encode: Callable[[str], list[int]], max_tokens: int
) -> list[Document]:
  """Returns `document` in pieces of at most `max_tokens` tokens; itself alone if it is that short.

  A piece is a slice of the text without the whitespace around it, about as long as it can be. Its
  id is that of the document followed by `-0`, `-1`, ... Paragraphs are kept whole where they fit,
  then sentences, then words.
  """
  @functools.cache  # a unit that does not fit is measured again as the first one of the next piece
  def size(text: str) -> int:
    return len(encode(text))

  if size(document.text) <= max_tokens:
    return [document]
  pieces = _split(document.text, size, max_tokens, level=0)
  return [
    dataclasses.replace(document, id=f'{document.id}-{number}', text=piece)
    for number, piece in enumerate(pieces)
  ]


def _split(
    text: str, size: Callable[[str], int], max_tokens: int, level: int
) -> Iterator[str]:
  """Yields the pieces of `text`, cut at the places of `level`, or finer where that is needed."""
  cuts = [0, *(match.end() for match in _CUTS[level].finditer(text)), len(text)]
  is_finest = level + 1 == len(_CUTS)
  if len(cuts) == 2 and not is_finest:
    yield from _split(text, size, max_tokens, level + 1)
    return
  first = 0
  while first + 1 < len(cuts):
    count = _longest(text, cuts[first:], size, max_tokens)
    last = first + max(count, 1)
    piece = text[cuts[first]:cuts[last]].strip()
    if count or is_finest:
      yield from [piece] if piece else []
    else:
      yield from _split(piece, size, max_tokens, level + 1)
    first = last


def _longest(text: str, cuts: list[int], size: Callable[[str], int], max_tokens: int) -> int:
  """Returns how many of the units between `cuts` fit together, from the first: 0 if none does.

  The sizes of the units are added up, so that each is encoded once. Then the units are encoded
  together, as that may give another number of tokens.
  """
  total = count = 0
  for start, end in itertools.pairwise(cuts):
    total += size(text[start:end].strip())
    if total > max_tokens:
      break
    count += 1
  while count and size(text[cuts[0]:cuts[count]].strip()) > max_tokens:
    count -= 1
  return count
