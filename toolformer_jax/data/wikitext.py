"""Wikitext to plain text: what a reader of the page reads in its paragraphs."""

import re
from collections.abc import Collection

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

from toolformer_jax.data.wikitext_blocks import split_blocks
from toolformer_jax.data.wikitext_holes import BOX, HOLE, UNKNOWN, paragraphs, settle
from toolformer_jax.data.wikitext_links import FILE_NAMESPACES, shows_no_text
from toolformer_jax.data.wikitext_templates import (
  superscript_text,
  template_text,
  without_variants,
)

_DROPPED_SECTIONS = frozenset({
  'bibliography', 'citations', 'explanatory notes', 'external links', 'footnotes',
  'further reading', 'gallery', 'notes', 'notes and references', 'primary sources', 'references',
  'references and notes', 'secondary sources', 'see also', 'sources', 'works cited',
})
_HEADING = re.compile(r'^(={2,6})([^\n]*?)\1[ \t]*$', re.MULTILINE)
# Comments, notes and magic words go before parsing, since parsing is what takes the time. No
# alternative looks beyond the next tag of its kind, so that the time is linear.
_CUT = re.compile(
    r'<!--.*?(?:-->|\Z)|<ref\b[^<>]*/>'
    r'|<ref\b[^<>]*(?<!/)>[^<]*(?:<(?!/?ref\b)[^<]*)*</ref\s*>|__[A-Z]+__', re.DOTALL)
_MARKUP = re.compile(r'[\[{<&|]|//|^[=*#:;-]')
_TITLE = re.compile(r'(={1,6})(.+?)\1\s*')
_ITEM = re.compile(r'[*#:;]\s*')
_TERM = re.compile(r'([^:\[{<]*):(?!//)')  # in front of its definition

_DROPPED_TAGS = frozenset({
  'gallery', 'imagemap', 'ref', 'references', 'score', 'table', 'timeline'
})
_ITEM_TAGS = frozenset({'blockquote', 'center', 'dd', 'div', 'dt', 'hr', 'li', 'p', 'poem'})
_FORMULA_TAGS = frozenset({'chem', 'graph', 'hiero', 'math', 'pre', 'source', 'syntaxhighlight'})

_LEFT_OVER = re.compile(rf'{HOLE}|{{{{|}}}}|\[\[|\]\]|{{\||\|}}|-{{|</?[a-z]+[ />]|\|thumb|^[|!]')


def _apostrophes(num_quotes: int) -> str:
  """Returns what a run of quotes shows besides bold and italics: the quotes that are too many."""
  return "'" * (1 if num_quotes == 4 else max(0, num_quotes - 5))


# What dropped templates leave around the place where they stood.
_TIDYINGS = (
  (re.compile(r"'{2,}"), lambda quotes: _apostrophes(len(quotes[0]))),
  (re.compile(r'\[\d+\]'), ''),
  (re.compile(r'\s+'), ' '),
  (re.compile(r'([(\[])[\s,;:/]+'), r'\1'),
  (re.compile(r'(?<![\s,;:/])[\s,;:/]+([)\]])'), r'\1'),
  (re.compile(r' ?(?:\(\)|\[\])'), ''),
  (re.compile(r' +([,.;:?)])(?=\s|$|[,.;:?)])'), r'\1'),
  (re.compile(r'([,;:])(?: ?[,;])+'), r'\1'),
)


def plain_text(wikitext: str, file_namespaces: Collection[str] = FILE_NAMESPACES) -> str:
  """Returns the prose of `wikitext`: paragraphs and `== Heading ==` lines, apart by blank lines.

  Notes, tables, images, categories and comments are dropped, and so are the sections of references
  and links. The items of a list are paragraphs. A paragraph with a formula, with markup that is
  never closed, or with a template in its sentences whose text is not known is left out whole.

  Args:
    wikitext: of a page.
    file_namespaces: the names, in lower case, of the namespaces of files and categories.

  Raises:
    TooMuchMarkup: it would take seconds to parse.
  """
  # The parser takes a null character for the end.
  kept = _without_dropped_sections(_CUT.sub('', wikitext.replace('\0', '')))
  kept = without_variants(kept)
  renderer = _Renderer(frozenset(file_namespaces))
  text = '\n'.join(map(renderer.block, split_blocks(kept)))
  tidy = map(_tidy, paragraphs(text))
  return '\n\n'.join(part for part in tidy if part and not _LEFT_OVER.search(part))


def _without_dropped_sections(wikitext: str) -> str:
  kept, at, dropped_level = [], 0, None
  for heading in _HEADING.finditer(wikitext):
    if dropped_level is None:
      kept.append(wikitext[at:heading.start()])
    level = len(heading[1])
    at = heading.start()
    if dropped_level is None or level <= dropped_level:
      dropped_level = level if heading[2].strip().lower() in _DROPPED_SECTIONS else None
  return ''.join(kept) + (wikitext[at:] if dropped_level is None else '')


def _tidy(paragraph: str) -> str:
  for pattern, replacement in _TIDYINGS:
    paragraph = pattern.sub(replacement, paragraph)
  return paragraph.strip()


class _Renderer:
  """Renders parsed wikitext as text."""

  def __init__(self, file_namespaces: frozenset[str]):
    self._file_namespaces = file_namespaces

  def block(self, wikitext: str) -> str:
    """Returns the text of a block, in which a template may stand outside of the sentences."""
    if title := _TITLE.fullmatch(wikitext):
      return f'\n\n{title[1]} {self._inline(title[2]).strip()} {title[1]}\n\n'
    if marker := _ITEM.match(wikitext):
      item = wikitext[marker.end():]
      if wikitext.startswith(';'):
        item = _TERM.sub(r'\1\n\n', item, count=1)
      return f'\n\n{self._inline(item)}\n'
    return self._inline(wikitext)

  def _inline(self, wikitext: str) -> str:
    if not _MARKUP.search(wikitext):
      return wikitext
    # Quotes are left to _tidy: the parser takes quadratic time where they cross brackets.
    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    return settle(self._text(code))

  def _text(self, code: Wikicode | None) -> str:
    return ''.join(map(self._node, code.nodes)) if code is not None else ''

  def _node(self, node: nodes.Node) -> str:
    match node:
      case nodes.Text():
        return node.value
      case nodes.Wikilink():
        return self._link(node)
      case nodes.ExternalLink():
        return self._text(node.title if node.brackets else node.url)
      case nodes.Heading():
        marks = '=' * node.level
        return f'\n\n{marks} {_tidy(self._text(node.title))} {marks}\n\n'
      case nodes.HTMLEntity():
        return node.normalize()
      case nodes.Template():
        return self._template(node)
      case nodes.Argument():
        return HOLE if node.default is None else self._text(node.default)
      case nodes.Tag():
        return self._tag(node)
    return ''  # comments

  def _link(self, link: nodes.Wikilink) -> str:
    parts = [] if link.text is None else str(link.text).split('|')
    if shows_no_text(str(link.title), parts, self._file_namespaces):
      return ''
    return self._text(link.title if link.text is None else link.text).strip().removeprefix(':')

  def _template(self, template: nodes.Template) -> str:
    values = {str(given.name).strip(): self._text(given.value).strip()
              for given in template.params}
    arguments: list[str] = []
    while (position := str(len(arguments) + 1)) in values:
      arguments.append(values.pop(position))
    text = template_text(self._text(template.name), arguments, values)
    if text is not None:
      return text
    return BOX if '\n' in str(template) and values and not arguments else UNKNOWN

  def _tag(self, tag: nodes.Tag) -> str:
    name = str(tag.tag).strip().lower()
    if name in _DROPPED_TAGS:
      return ''
    if name in _FORMULA_TAGS:
      return HOLE
    if name == 'br':
      return ' '
    contents = self._text(tag.contents)
    if name == 'sup':
      text = superscript_text(contents)
      return HOLE if text is None else text
    return f'\n\n{contents}' if name in _ITEM_TAGS else contents
