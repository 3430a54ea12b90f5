"""Reads the pages of an encyclopedia: MediaWiki dumps, and JSON Lines, plain or KILT's."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.data.mediawiki import Article, article_page, is_dump, read_articles
from toolformer_jax.data.passages import Page
from toolformer_jax.data.wikitext_blocks import TooMuchMarkup
from toolformer_jax.errors import UserError

# KILT marks headings as `Section::::History.Origins.`, and items of lists.
_SECTION, _BULLET = 'Section::::', 'BULLET::::'


def corpus_pages(corpus: epath.Path) -> Iterator[Page | Article]:
  """Yields the pages of a MediaWiki dump, with their markup, or of JSON Lines, plain or KILT's.

  To remove the markup takes most of the time; `plain_pages` does it, in any process.

  Raises:
    UserError: the file cannot be read, or a line of it is not a page.
  """
  if is_dump(corpus):
    yield from read_articles(corpus)
    return
  for number, fields in read_objects(corpus):
    title, text = _fields(fields)
    if not isinstance(title, str) or not isinstance(text, str):
      raise UserError(f'{corpus}:{number}: a page needs the fields `title` and `text`, strings')
    yield Page(title, text)


def plain_pages(pages: Iterable[Page | Article]) -> tuple[list[Page], int]:
  """Returns the pages that have prose, without markup, and how many had too much of it."""
  plain, num_left_out = [], 0
  for page in pages:
    try:
      found = article_page(page) if isinstance(page, Article) else page
    except TooMuchMarkup:
      num_left_out += 1
      continue
    if found:
      plain.append(found)
  return plain, num_left_out


def _fields(fields: dict[str, Any]) -> tuple[Any, Any]:
  """Returns the title and text of a page; KILT's text is a list of paragraphs."""
  paragraphs = fields.get('text')
  if 'wikipedia_title' not in fields or not isinstance(paragraphs, list):
    return fields.get('title'), paragraphs
  return fields['wikipedia_title'], _kilt_text([str(paragraph) for paragraph in paragraphs])


def _kilt_text(paragraphs: Sequence[str]) -> str:
  """Returns KILT's paragraphs, the first of which is the title, as one text with headings."""
  lines = []
  for paragraph in map(str.strip, paragraphs[1:]):
    if paragraph.startswith(_SECTION):
      # A full stop within a name, as in `St. Louis`, is followed by a space.
      heading = re.split(r'\.(?! )', paragraph.removeprefix(_SECTION).rstrip('.'))[-1]
      lines.append(f'== {heading} ==')
    else:
      lines.append(paragraph.removeprefix(_BULLET))
  return '\n\n'.join(lines)
