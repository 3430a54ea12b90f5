"""Reads a folder of Markdown or HTML pages whose pictures, sounds and videos become handles."""

import html
import logging
import os
import posixpath
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser

from etils import epath

from toolformer_jax.data.media_files import check_inside, check_links
from toolformer_jax.data.records import Document
from toolformer_jax.errors import ToolError, UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import Medium, read_medium
from toolformer_jax.runtime.paths import files_under, reason

log = logging.getLogger(__name__)
_MARKDOWN, _HTML = ('.md', '.markdown'), ('.html', '.htm')
_MEDIA_TAGS = ('img', 'audio', 'video')
_SILENT_TAGS = ('script', 'style', 'template', 'noscript')  # not `head`, whose end may be left out
_BLOCK_TAGS = frozenset(
    'address article aside blockquote br dd div dl dt fieldset figcaption figure footer form h1 h2 '
    'h3 h4 h5 h6 header hr li main nav ol p pre section table tr ul'.split())
# `![alt](path "title")`, or a tag of HTML, which Markdown may contain.
_MARKDOWN_MEDIUM = re.compile(
    r'!\[(?P<alt>[^\]\n]{0,2000})\]\(\s*(?:<(?P<quoted>[^>\n]{1,2000})>|(?P<plain>[^\s)]{1,2000}))'
    r'(?:\s+(?:"[^"\n]*"|\'[^\'\n]*\'))?\s*\)'
    r'|<img\b[^>]{0,4000}>'
    r'|<(?P<tag>audio|video)\b[^>]{0,4000}>(?:.{0,4000}?</(?P=tag)\s*>)?',
    re.DOTALL | re.IGNORECASE)
_HEADING = re.compile(r'^#[ \t]+(\S.*)', re.MULTILINE)
# Pictures inside a page, which may be longer than what `_MARKDOWN_MEDIUM` reads.
_DATA_ADDRESS = re.compile(r'data:[\w/+.-]{0,100}(?:;[\w=.-]{1,100}){0,5};base64,[A-Za-z0-9+/=]*')
_CLOSING_MARKS = re.compile(r'\s#+$')  # of a heading, `# Title ##`


def page_files(folder: epath.Path) -> list[epath.Path]:
  """Returns the pages in a folder and the folders in it, sorted."""
  return [file for file in files_under(folder) if file.suffix.lower() in _MARKDOWN + _HTML]


def read_page_folder(folder: epath.Path, *, alt_texts: bool, limits: MediaLimits | None
                     ) -> Iterator[Document]:
  """Yields the pages in `folder` as documents; their ids are their paths.

  Where a page has a picture, a sound or a video of the folder, its text has the handle, such as
  `(image 1)`. Other media, such as those at addresses, are left out; how many is logged.

  Args:
    folder: the folder.
    alt_texts: keep the alternative texts of pictures, before the handles.
    limits: what a medium may have; None to leave out all media.

  Raises:
    UserError: a page cannot be read, is not UTF-8, or is a link that leads out of the folder.
  """
  num_left_out = 0
  for file in page_files(folder):
    name = file.relative_to(folder).as_posix()
    try:
      check_links(name, folder)
      source = file.read_bytes().decode('utf-8-sig')
    except (OSError, UnicodeDecodeError, ToolError) as error:
      raise UserError(f'cannot read {file}: {reason(error)}') from error
    page = _Page(folder, name, alt_texts, limits)
    is_html = file.suffix.lower() in _HTML
    text, title = page.read_html(source) if is_html else page.read_markdown(source)
    num_left_out += page.num_left_out
    yield Document(id=page.name, text=text.strip(), title=title, source=folder.name,
                   media=tuple(page.media))
  if num_left_out:
    log.warning('%s: %d media were left out, because they are no files of the folder or of a known '
                'format', folder, num_left_out)


class _Page:
  """A page, and the media that were found in it so far.

  Attributes:
    name: path of the page in its folder.
    media: in the order of their handles.
    num_left_out: how many were no files of the folder, or of no known format.
  """

  def __init__(self, folder: epath.Path, name: str, alt_texts: bool, limits: MediaLimits | None):
    self.name = name
    self.media: list[Medium] = []
    self.num_left_out = 0
    self._folder, self._alt_texts, self._limits = folder, alt_texts, limits
    self._counts: Counter[str] = Counter()

  def handle(self, source: str | None, alt: str | None) -> str:
    """Returns what stands in the text for a medium: its alternative text, and its handle."""
    medium = self._find(source or '')
    words = [' '.join(alt.split())] if alt and self._alt_texts else []
    if medium is None:
      self.num_left_out += self._limits is not None
    else:
      self.media.append(medium)
      self._counts[medium.kind] += 1
      words.append(f'({medium.kind} {self._counts[medium.kind]})')
    return ' '.join(filter(None, words))

  def _find(self, source: str) -> Medium | None:
    """Returns the medium that the page names as `source`; None if it is no file of the folder."""
    path = urllib.parse.unquote(re.split('[?#]', source.strip(), maxsplit=1)[0])
    if self._limits is None or path.startswith('/'):
      return None
    try:
      path = posixpath.normpath(posixpath.join(posixpath.dirname(self.name), path))
      return read_medium(check_inside(path, self._folder), os.fspath(self._folder), self._limits)
    except (ToolError, UserError):
      return None

  def read_markdown(self, source: str) -> tuple[str, str | None]:
    """Returns the text of a page in Markdown, and its title, the first heading."""
    def replaced(match: re.Match[str]) -> str:
      if match['alt'] is not None:
        return self.handle(html.unescape(match['quoted'] or match['plain']), match['alt'])
      return _HtmlText.of(match[0], self)[0].strip()
    heading = _HEADING.search(source)
    title = heading and _CLOSING_MARKS.sub('', heading[1].rstrip()).rstrip()
    return _MARKDOWN_MEDIUM.sub(replaced, _DATA_ADDRESS.sub('data:', source)), title

  def read_html(self, source: str) -> tuple[str, str | None]:
    """Returns the text of a page in HTML, and its title."""
    return _HtmlText.of(source, self)


class _HtmlText(HTMLParser):
  """Collects the text of a page in HTML, with handles for its media."""

  def __init__(self, page: _Page):
    super().__init__()
    self._page = page
    self._pieces: list[str] = []
    self._title: list[str] = []
    self._open: list[str] = []  # the silent and media tags that are open
    self._waiting = False  # for the source of an audio or video

  @classmethod
  def of(cls, source: str, page: _Page) -> tuple[str, str | None]:
    """Returns the text and the title of a page."""
    parser = cls(page)
    parser.feed(source)
    parser.close()
    lines = [' '.join(line.split()) for line in ''.join(parser._pieces).split('\n')]
    text = re.sub(r'\n{3,}', '\n\n', '\n'.join(lines))
    return text, ' '.join(''.join(parser._title).split()) or None

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    fields = dict(attrs)
    if tag in _BLOCK_TAGS:
      self._pieces.append('\n')
    if tag in (*_SILENT_TAGS, 'title', 'audio', 'video'):
      self._open.append(tag)
    if tag == 'img' or (tag in _MEDIA_TAGS and fields.get('src')):
      self._add(fields)
    elif tag in ('audio', 'video'):
      self._waiting = True
    elif tag == 'source' and self._waiting:
      self._add(fields)

  def _add(self, fields: dict[str, str | None]) -> None:
    self._waiting = False
    self._pieces.append(f' {self._page.handle(fields.get("src"), fields.get("alt"))} ')

  def handle_endtag(self, tag: str) -> None:
    if tag in self._open:
      del self._open[len(self._open) - 1 - self._open[::-1].index(tag):]
    if tag in ('audio', 'video'):
      self._waiting = False
    if tag in _BLOCK_TAGS:
      self._pieces.append('\n')

  def handle_data(self, data: str) -> None:
    if self._open[-1:] == ['title']:
      self._title.append(data)
    elif not self._open:
      self._pieces.append(data.replace('\n', ' '))
