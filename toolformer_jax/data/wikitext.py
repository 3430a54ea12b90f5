"""Wikitext to plain text: what a reader of the page reads in its paragraphs."""

import re

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

_DROPPED_SECTIONS = frozenset({
  'bibliography', 'citations', 'explanatory notes', 'external links', 'footnotes',
  'further reading', 'gallery', 'notes', 'notes and references', 'primary sources', 'references',
  'references and notes', 'secondary sources', 'see also', 'sources', 'works cited',
})
_HEADING = re.compile(r'^(={2,6})\s*([^\n]*?)\s*\1\s*$', re.MULTILINE)
# Comments, notes and magic words go before parsing, since parsing is what takes the time.
_CUT = re.compile(r'<!--.*?-->|<ref\b[^>]*/>|<ref\b[^>]*>.*?</ref\s*>|__[A-Z]+__', re.DOTALL)

_DROPPED_TAGS = frozenset({
  'gallery', 'imagemap', 'ref', 'references', 'score', 'table', 'timeline'
})
_ITEM_TAGS = frozenset({'blockquote', 'center', 'dd', 'div', 'dt', 'hr', 'li', 'p', 'poem'})
_DROPPED_LINK = re.compile(r'[\s:]*(?:file|image|media|category|[a-z]{2,3}|simple):', re.IGNORECASE)

# Templates that stand for prose, and which of their positional arguments it is.
_PROSE_TEMPLATES = {
  'angbr': 0, 'blockquote': 0, 'cquote': 0, 'lang': -1, 'nihongo': 0, 'nowrap': 0, 'quote': 0,
  'sic': 0, 'small': 0, 'smaller': 0, 'transl': -1, 'us$': 0, 'vr': 0,
}
_RANGES = {'to': ' to ', '-': '–', '–': '–', 'and': ' and ', 'or': ' or ', 'x': ' × ', 'by': ' by '}
_UNITS = {'C': '°C', 'F': '°F', 'km2': 'km²', 'm2': 'm²', 'sqmi': 'sq mi', 'sqft': 'sq ft'}

# A paragraph that lost a formula has a hole, and goes as a whole.
_HOLE = '\ue000'
_FORMULA_TAGS = frozenset({'chem', 'math', 'pre', 'source', 'syntaxhighlight'})
_FORMULA_TEMPLATES = frozenset({'chem', 'frac', 'math', 'mvar', 'nuclide', 'sfrac', 'val'})
_LEFT_OVER = re.compile(rf'{_HOLE}|{{{{|}}}}|\[\[|\]\]|{{\||\|}}|</?[a-z]+[ />]|\|thumb|^[|!]')

# What dropped templates leave around the place where they stood.
_TIDYINGS = (
  (re.compile(r"'{2,}|\[\d+\]"), ''),
  (re.compile(r'\s+'), ' '),
  (re.compile(r'([(\[])[\s,;:/]+'), r'\1'),
  (re.compile(r'[\s,;:/]+([)\]])'), r'\1'),
  (re.compile(r' ?(?:\(\)|\[\])'), ''),
  (re.compile(r' +([,.;:?)])(?=\s|$|[,.;:?)])'), r'\1'),
  (re.compile(r'([,;:])(?: ?[,;])+'), r'\1'),
)


def plain_text(wikitext: str) -> str:
  """Returns the prose of `wikitext`: paragraphs and `== Heading ==` lines, apart by blank lines.

  Templates, notes, tables, images, categories and comments are dropped, and so are the sections
  of references and links, and paragraphs with formulas. The items of a list are paragraphs.
  """
  kept = _without_dropped_sections(_CUT.sub('', wikitext))
  paragraphs = (_tidy(part) for part in re.split(r'\n\s*\n', _render(mwparserfromhell.parse(kept))))
  return '\n\n'.join(part for part in paragraphs if part and not _LEFT_OVER.search(part))


def _without_dropped_sections(wikitext: str) -> str:
  kept, at, dropped_level = [], 0, None
  for heading in _HEADING.finditer(wikitext):
    if dropped_level is None:
      kept.append(wikitext[at:heading.start()])
    level = len(heading[1])
    at = heading.start()
    if dropped_level is None or level <= dropped_level:
      dropped_level = level if heading[2].lower() in _DROPPED_SECTIONS else None
  return ''.join(kept) + (wikitext[at:] if dropped_level is None else '')


def _tidy(paragraph: str) -> str:
  for pattern, replacement in _TIDYINGS:
    paragraph = pattern.sub(replacement, paragraph)
  return paragraph.strip()


def _render(code: Wikicode | None) -> str:
  return ''.join(_render_node(node) for node in code.nodes) if code is not None else ''


def _render_node(node: nodes.Node) -> str:
  match node:
    case nodes.Text():
      return node.value
    case nodes.Wikilink():
      if _DROPPED_LINK.match(str(node.title)):
        return ''
      return _render(node.text if node.text is not None else node.title)
    case nodes.ExternalLink():
      return _render(node.title)
    case nodes.Heading():
      marks = '=' * node.level
      return f'\n\n{marks} {_tidy(_render(node.title))} {marks}\n\n'
    case nodes.HTMLEntity():
      return node.normalize()
    case nodes.Template():
      return _render_template(node)
    case nodes.Tag():
      return _render_tag(node)
  return ''  # comments, and arguments of templates


def _render_tag(tag: nodes.Tag) -> str:
  name = str(tag.tag).strip().lower()
  if name in _DROPPED_TAGS:
    return ''
  if name in _FORMULA_TAGS:
    return _HOLE
  if name == 'br':
    return ' '
  contents = _render(tag.contents)
  return f'\n\n{contents}' if name in _ITEM_TAGS else contents


def _render_template(template: nodes.Template) -> str:
  name = str(template.name).strip().lower()
  if name in _FORMULA_TEMPLATES:
    return _HOLE
  arguments = [_render(given.value).strip() for given in template.params if not given.showkey]
  if name in ('convert', 'cvt'):
    return _converted(arguments)
  if name.startswith('lang-'):
    name = 'lang'
  if name not in _PROSE_TEMPLATES or not arguments:
    return ''
  return arguments[_PROSE_TEMPLATES[name]]


def _converted(arguments: list[str]) -> str:
  """Returns a measure in the unit that its source states, without the conversion."""
  if len(arguments) >= 4 and arguments[1] in _RANGES:
    low, between, high, unit = arguments[:4]
    return f'{low}{_RANGES[between]}{high} {_UNITS.get(unit, unit)}'
  if len(arguments) >= 2:
    return f'{arguments[0]} {_UNITS.get(arguments[1], arguments[1])}'
  return _HOLE
