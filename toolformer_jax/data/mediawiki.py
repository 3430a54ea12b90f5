"""Reads the articles of a MediaWiki XML dump, such as Wikipedia's `pages-articles`."""

import logging
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from etils import epath

from toolformer_jax.data.compression import open_binary, read_errors, uncompressed_name
from toolformer_jax.data.passages import Page
from toolformer_jax.data.wikitext import plain_text
from toolformer_jax.data.wikitext_blocks import TooMuchMarkup
from toolformer_jax.data.wikitext_links import FILE_NAMESPACES
from toolformer_jax.errors import UserError

log = logging.getLogger(__name__)

_JSON = frozenset({'.json', '.jsonl', '.ndjson'})
_ARTICLES = '0'  # the namespace
_FILES = frozenset({'6', '14'})  # files and categories


class Article(NamedTuple):
  """A page of a dump as it was written, and the names of the dump's namespaces for files."""

  title: str
  wikitext: str
  file_namespaces: frozenset[str]


def is_dump(path: epath.Path) -> bool:
  """Tells by its name whether a file is a dump: .xml or .bz2, but not .jsonl.bz2."""
  name = pathlib.PurePath(uncompressed_name(path))
  return name.suffix == '.xml' or path.suffix == '.bz2' and name.suffix not in _JSON


def read_pages(path: epath.Path) -> Iterator[Page]:
  """Yields the articles of the dump `path` as plain text, one at a time in memory.

  The file is .xml, plain or compressed. Of several revisions of a page the newest is read.
  Redirects, pages of other namespaces and pages without prose are left out.
  Pages with too much markup are left out and counted in the log.

  Raises:
    UserError: the file cannot be read, or is not a MediaWiki dump.
  """
  num_left_out = 0
  for article in read_articles(path):
    try:
      if page := article_page(article):
        yield page
    except TooMuchMarkup:
      num_left_out += 1
  warn_of_left_out(path, num_left_out)


def read_articles(path: pathlib.Path) -> Iterator[Article]:
  """Yields the articles of the dump `path`, with their markup; see `read_pages`."""
  try:
    with open_binary(path) as file:
      yield from _articles(file)
  except read_errors(path) + (ElementTree.ParseError,) as error:
    raise UserError(f'cannot read {path} as a MediaWiki dump (.xml.bz2): {error}') from error


def article_page(article: Article) -> Page | None:
  """Returns an article as plain text; None if it has no prose.

  Raises:
    TooMuchMarkup: it has too much to parse.
  """
  text = plain_text(article.wikitext, article.file_namespaces)
  return Page(article.title, text) if text else None


def warn_of_left_out(path: pathlib.Path, count: int) -> None:
  """Logs how many pages had too much markup, if any."""
  if count:
    log.warning('%s: left out %d pages with too much markup to parse', path, count)


def _articles(file: BinaryIO) -> Iterator[Article]:
  file_namespaces, newest = FILE_NAMESPACES, None
  events = ElementTree.iterparse(file, events=('start', 'end'))
  _, root = next(events)
  for event, element in events:
    if event == 'start':
      continue
    if element.tag.endswith('}siteinfo'):
      names = {(one.text or '').lower() for one in element.iter() if one.get('key') in _FILES}
      file_namespaces |= names - {''}
    elif element.tag.endswith('}revision'):
      space = element.tag.removesuffix('revision')
      revision = (element.findtext(f'{space}timestamp', ''), element.findtext(f'{space}text', ''))
      newest = max(newest or revision, revision, key=lambda one: one[0])
      element.clear()  # a page may have thousands
    elif element.tag.endswith('}page'):
      space = element.tag.removesuffix('page')
      is_redirect = element.find(f'{space}redirect') is not None
      if element.findtext(f'{space}ns') == _ARTICLES and not is_redirect and newest:
        yield Article(element.findtext(f'{space}title', ''), newest[1], file_namespaces)
      newest = None
      root.clear()  # or all pages that were read would stay in memory
