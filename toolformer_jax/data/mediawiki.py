"""Reads the articles of a MediaWiki XML dump, such as Wikipedia's `pages-articles`."""

import bz2
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from toolformer_jax.data.passages import Page
from toolformer_jax.data.wikitext import plain_text
from toolformer_jax.errors import UserError

_ARTICLES = '0'  # the namespace


def read_pages(path: pathlib.Path) -> Iterator[Page]:
  """Yields the articles of the dump `path` (.xml.bz2) as plain text, one at a time in memory.

  Redirects and pages of other namespaces are passed over, and so are those without any prose.

  Raises:
    UserError: the file cannot be read, or is no MediaWiki dump.
  """
  try:
    with bz2.open(path) as file:
      for title, wikitext in _articles(file):
        text = plain_text(wikitext)
        if text:
          yield Page(title, text)
  except (OSError, EOFError, ElementTree.ParseError) as error:
    raise UserError(f'cannot read {path} as a MediaWiki dump (.xml.bz2): {error}') from error


def _articles(file: bz2.BZ2File) -> Iterator[tuple[str, str]]:
  events = ElementTree.iterparse(file, events=('start', 'end'))
  _, root = next(events)
  for event, element in events:
    if event == 'end' and element.tag.endswith('}page'):
      space = element.tag.removesuffix('page')
      is_redirect = element.find(f'{space}redirect') is not None
      if element.findtext(f'{space}ns') == _ARTICLES and not is_redirect:
        wikitext = element.findtext(f'{space}revision/{space}text') or ''
        yield element.findtext(f'{space}title', ''), wikitext
      root.clear()  # else the pages read stay in memory
