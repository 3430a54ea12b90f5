"""Splits wikitext into blocks that can be parsed one by one.

A parser tries an opening bracket again and again where its end is missing: the time is quadratic
or worse. Here every bracket is matched in one pass, and the parser sees closed markup only.
"""

import re
from collections import Counter
from typing import NamedTuple

from toolformer_jax.data.wikitext_holes import HOLE, MARKS

_SPLIT = '\ue00f'
_MAX_DEPTH = 40  # the parser's limit
# Long articles have 3,000 brackets, tags and lines, long lists 8,000.
_MAX_TOKENS = 15_000
# Arguments, attributes, addresses, entities and tags: each takes up to 50 microseconds.
_PARTS = re.compile(r'[|=&<]|//')
_MAX_PARTS = 12_000
_MAX_BLOCK_CHARS = 20_000  # longer ones are tables and boxes

_VERBATIM = 'chem|graph|hiero|math|nowiki|pre|score|source|syntaxhighlight|timeline'
_TOKEN = re.compile(
    rf'<(?P<verbatim>{_VERBATIM})\b[^<>]*>[^<]*(?:<(?!/?(?P=verbatim)\b)[^<]*)*</(?P=verbatim)\s*>'
    r'|<(?P<slash>/?)(?P<tag>[a-z][a-z0-9]*)(?P<attributes>[^<>]*)>|<(?=[a-z/])'
    r'|\{\{|\}\}|\[\[|\]\]|^[ :*#;]*\{\||^[ ]*\|\}(?!\})|\[(?=(?:https?:|ftp:)?//|mailto:)|\]|\n',
    re.IGNORECASE | re.MULTILINE)
_LIST_MARKERS = re.compile(r'^[*#:;]+([*#:;])', re.MULTILINE)  # only the last is of interest
_OPENS = frozenset({'{{', '[[', '{|', '['})
_CLOSES = {'}}': '{{', ']]': '[[', '|}': '{|', ']': '['}
_VOID_TAGS = frozenset({'br', 'dd', 'dt', 'hr', 'img', 'li', 'link', 'meta', 'td', 'th', 'tr',
                        'wbr'})


class TooMuchMarkup(Exception):
  """A page that would take seconds to parse."""


class _Bracket(NamedTuple):
  """An opening bracket or tag: its kind and its place."""

  kind: str
  start: int
  end: int


def split_blocks(wikitext: str) -> list[str]:
  """Returns the lines of `wikitext`; lines that brackets or tags join are one block.

  Tables are left out. An opening bracket or tag that is never closed, or nested too deep, is
  replaced by HOLE; so is a block that is too long.

  Raises:
    TooMuchMarkup: the page has more brackets, tags, lines or arguments than articles have.
  """
  wikitext = _LIST_MARKERS.sub(r'\1', re.sub(f'[{MARKS}{_SPLIT}]', '', wikitext))
  matcher = _Matcher(wikitext)
  for number, token in enumerate(_TOKEN.finditer(wikitext)):
    if number == _MAX_TOKENS:
      raise TooMuchMarkup
    matcher.read(token)
  edits = [(one.start, one.end, '\n\n' if one.kind == 'p' else HOLE) for one in matcher.finish()]
  edits += [(end, end + 1, _SPLIT) for end in matcher.line_ends()]
  edits += [(start, end, '') for start, end in matcher.tables]
  parts: list[str] = []
  at = 0
  for start, end, replacement in sorted(edits):
    if start >= at:  # in no table
      parts += wikitext[at:start], replacement
      at = end
  blocks = ''.join([*parts, wikitext[at:]]).split(_SPLIT)
  blocks = [block if len(block) <= _MAX_BLOCK_CHARS else HOLE for block in blocks]
  if sum(len(_PARTS.findall(block)) for block in blocks) > _MAX_PARTS:
    raise TooMuchMarkup
  return blocks


class _Matcher:
  """Matches brackets and tags with their ends; time is linear in the number of tokens."""

  def __init__(self, wikitext: str) -> None:
    self.tables: list[tuple[int, int]] = []
    self._wikitext = wikitext
    self._stack: list[_Bracket] = []
    self._open: Counter[str] = Counter()
    self._unclosed: list[_Bracket] = []
    self._pairs: list[tuple[int, int]] = []
    self._newlines: list[int] = []

  def read(self, token: re.Match[str]) -> None:
    """Takes the next token."""
    text = token[0].strip(' :*#;') if token[0] != '\n' else '\n'
    if token['verbatim']:
      self._pairs.append(token.span())
    elif token['tag']:
      self._read_tag(token)
    elif text == '\n':
      self._newlines.append(token.start())
      while self._stack and self._stack[-1].kind == '[':  # these end with the line
        self._unclosed.append(self._pop())
    elif text in _OPENS:
      self._push(_Bracket(text, token.end() - len(text), token.end()))
    elif text in _CLOSES:
      self._close(_CLOSES[text], token.end())
    else:
      self._unclosed.append(_Bracket(text, *token.span()))  # a tag that is cut off

  def finish(self) -> list[_Bracket]:
    """Returns the brackets that were not closed."""
    return self._unclosed + self._stack

  def line_ends(self) -> list[int]:
    """Returns the positions of the line feeds that are in no brackets."""
    free, pairs, last = [], sorted(self._pairs), 0
    pairs.reverse()
    for newline in self._newlines:
      while pairs and pairs[-1][0] < newline:
        last = max(last, pairs.pop()[1])
      if newline >= last:
        free.append(newline)
    return free

  def _read_tag(self, token: re.Match[str]) -> None:
    name, attributes = token['tag'].lower(), token['attributes']
    if attributes.count('"') % 2 or attributes.count("'") % 2:
      self._unclosed.append(_Bracket(name, *token.span()))
    elif token['slash']:
      self._close(name, token.end())
    elif name not in _VOID_TAGS and not attributes.endswith('/'):
      self._push(_Bracket(name, *token.span()))

  def _push(self, bracket: _Bracket) -> None:
    if len(self._stack) >= _MAX_DEPTH:
      self._unclosed.append(bracket)
      return
    self._stack.append(bracket)
    self._open[bracket.kind] += 1

  def _pop(self) -> _Bracket:
    bracket = self._stack.pop()
    self._open[bracket.kind] -= 1
    return bracket

  def _close(self, kind: str, end: int) -> None:
    """Closes the last open bracket of a kind; those opened after it have no end."""
    if not self._open[kind]:
      return
    while (bracket := self._pop()).kind != kind:
      self._unclosed.append(bracket)
    self._pairs.append((bracket.start, end))
    if kind == '{|':
      self.tables.append((bracket.start, end))
    if kind == '{{' and self._wikitext[bracket.end] == '{' and self._wikitext[end:end + 1] != '}':
      self._unclosed.append(_Bracket('{', bracket.end, bracket.end + 1))
