"""Decides where content that is not rendered may be dropped, so that no sentence loses a word.

What is missing is marked in the text by one of the characters below. It may be dropped where it
stands outside of the sentences: in a line of its own, before the first sentence of a paragraph, or
behind the end of a sentence. Anywhere else it becomes a HOLE, and its paragraph is left out.
"""

import re
from collections.abc import Iterator

HOLE = '\ue000'  # content that is missing for certain: a formula, a bracket without an end
UNKNOWN = '\ue001'  # a template of which nothing is known
BOX = '\ue002'  # one that is written as boxes are: in several lines, with named arguments only
ASIDE = '\ue003'  # a template whose text is a remark, such as a pronunciation
MARKS = HOLE + UNKNOWN + BOX + ASIDE

_RUN = re.compile(rf'[{UNKNOWN}{BOX}{ASIDE}](?:\s*[{UNKNOWN}{BOX}{ASIDE}])*')
_CONTEXT = 60  # characters
_SENTENCE_END = re.compile(
    r"(?P<end>[^\W_]{3,}|[)\]\"”»%°'])[.!?…。！？]['\"”’»)\]]*$")
_ABBREVIATIONS = frozenset('''
  adm apr approx apt art aug ave bros capt cf col comm comp corp dec def dept dist div edn edns est
  etc fam feb fem fig figs fol gen gov govt hon inc inst intl jan jul jun lit ltd maj mar masc max
  mgr min misc mme mrs msgr mss nat natl nos nov num oct orig par pres prof prov pub ref rep repr
  rev seq ser sept sgt sing ssp str subsp supp trans univ var viz vol vols vss
  '''.split())
_LINE_END = re.compile(r"[.!?:…。！？：]['\"”’»)\]]*\s*$")
_OPENING = ' \t\n"“„«‘([¿¡'
_BOLD = "'''"
_ANNOUNCED = re.compile(r'(?:\b(?:as|in|is|and|pronounced|pronunciation)|:)\s*$', re.IGNORECASE)


def settle(block: str) -> str:
  """Returns a rendered block in which what stands outside of the sentences is dropped.

  Other marks become HOLE. A block of nothing but marks becomes BOX.
  """
  runs = list(_RUN.finditer(block))
  if not runs:
    return block
  if HOLE not in block and not _RUN.sub('', block).strip(" \n'"):
    return block[:len(block) - len(block.lstrip())] + BOX
  parts: list[str] = []
  at = depth = 0
  blank_until = len(block) - len(block.lstrip())
  for run in runs:
    gap = block[at:run.start()]
    depth = max(0, depth + gap.count('(') - gap.count(')'))
    before = block[max(0, run.start() - _CONTEXT):run.start()]
    after = block[run.end():run.end() + _CONTEXT]
    if run.start() <= blank_until:
      can_drop = _is_box(run[0], after)
    else:
      can_drop = _is_note(run[0], before, after) or _is_aside(run[0], depth, before, after)
    parts += gap, '' if can_drop else HOLE
    at = run.end()
  return ''.join([*parts, block[at:]])


def paragraphs(text: str) -> Iterator[str]:
  """Yields the paragraphs of settled blocks; a line that is a BOX is dropped or becomes HOLE."""
  for paragraph in re.split(r'\n\s*\n', text):
    first, *others = paragraph.split(BOX)
    lines = [first, *filter(str.strip, others[:-1]), *others[-1:]]
    if all(map(_is_between_sentences, lines, lines[1:])):
      yield from lines
    else:
      yield HOLE.join(lines)


def _is_between_sentences(before: str, after: str) -> bool:
  return ((not before.strip() or _LINE_END.search(before[-_CONTEXT:]) is not None)
          and (not after.strip() or _starts_sentence(after)))


def _is_box(run: str, after: str) -> bool:
  """Tells whether a run of marks at a start stands before a bold name, as boxes do."""
  return (after if set(run) - {BOX, ' ', '\n'} else after.lstrip()).startswith(_BOLD)


def _is_note(run: str, before: str, after: str) -> bool:
  """Tells whether a run of marks stands directly behind the end of a sentence."""
  if set(run) == {ASIDE} and not after.strip():
    before = before.rstrip()
  touches = bool(after) and not after[0].isspace()
  end = _SENTENCE_END.search(before)
  return (end is not None and end['end'].lower() not in _ABBREVIATIONS and not touches
          and (not after.strip() or _starts_sentence(after)))


def _is_aside(run: str, depth: int, before: str, after: str) -> bool:
  """Tells whether a run of marks is a remark in parentheses, and not between two words."""
  if set(run) - {ASIDE, ' '} or not depth or _ANNOUNCED.search(before):
    return False
  return not before.rstrip()[-1:].isalnum() or not after.lstrip()[:1].isalnum()


def _starts_sentence(text: str) -> bool:
  """Tells whether a text starts with a capital, a digit, a bold name, or a script without case."""
  text = text.lstrip(_OPENING)
  first = text[:1]
  return text.startswith("''") or first.isalnum() and first == first.upper()
