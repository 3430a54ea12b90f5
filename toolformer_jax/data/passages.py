"""Pages of an encyclopedia, cut into the passages that a search ranks."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_HEADING = re.compile(r'(=+)\s*(.+?)\s*\1')
_BLANK_LINE = re.compile(r'\n\s*\n')
# A full stop with its closing quotes and footnote marks, unless it ends an initial or a title.
_SENTENCE_END = re.compile(
  r'[.!?](?<!\b[A-Z]\.)(?<!\b(?:Mr|Dr|St|vs|No)\.)(?<!\bMrs\.)'
  r'(?:["\'”’)]|\[[0-9]+\])*\s+(?=["\'“‘(]?[A-Z0-9])'
)


@dataclass(frozen=True)
class Page:
  """A page: paragraphs separated by blank lines, headings on lines as `== Section ==`."""

  title: str
  text: str


@dataclass(frozen=True)
class Passage:
  """A part of a page, on one line; `section` is '' before the first heading."""

  title: str
  section: str
  text: str


def split_passages(pages: Iterable[Page], words: int = 100) -> list[Passage]:
  """Returns the passages of `pages`, in order, each of at most `words` words.

  A passage stays within its section. It ends with a paragraph if that fits, else with a sentence,
  else with a word; short paragraphs are merged.
  """
  return [
    Passage(page.title, section, text)
    for page in pages
    for section, body in _sections(page.text)
    for text in _split_body(body, words)
  ]


def split_sentences(text: str) -> list[str]:
  """Returns the sentences of `text`, split by punctuation, without the whitespace between them."""
  ends = [match.end() for match in _SENTENCE_END.finditer(text)]
  sentences = (
    text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)
  )
  return [sentence for sentence in sentences if sentence]


def _sections(text: str) -> Iterator[tuple[str, str]]:
  """Yields (heading, body) for the lead, whose heading is '', and every section of `text`."""
  heading = ''
  lines: list[str] = []
  for line in text.splitlines():
    match = _HEADING.fullmatch(line.strip())
    if match:
      yield heading, '\n'.join(lines)
      heading, lines = match[2], []
    else:
      lines.append(line)
  yield heading, '\n'.join(lines)


def _split_body(body: str, words: int) -> list[str]:
  pieces = []
  for paragraph in _BLANK_LINE.split(body):
    sentences = split_sentences(' '.join(paragraph.split()))
    parts = (part for sentence in sentences for part in _chop(sentence, words))
    pieces += _merge(parts, words)
  return _merge(pieces, words)


def _merge(pieces: Iterable[str], words: int) -> list[str]:
  """Returns `pieces` with neighbours joined, from the left, up to `words` words."""
  merged: list[str] = []
  room = 0
  for piece in pieces:
    count = len(piece.split())
    if count <= room:
      merged[-1] += ' ' + piece
    else:
      merged.append(piece)
      room = words
    room -= count
  return merged


def _chop(sentence: str, words: int) -> list[str]:
  """Returns `sentence`, in pieces of `words` words where it is longer."""
  split = sentence.split()
  return [' '.join(split[at:at + words]) for at in range(0, len(split), words)]
