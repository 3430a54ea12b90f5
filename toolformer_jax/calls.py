"""The grammar of an API call in text: write it, read it, insert it, remove it (paper, section 2).

A call without a result is ` [Name(argument)]`, with one ` [Name(argument) -> result]`. The call's
text always falls into two pieces, ` [Name(argument) ->` and ` result]`, that are tokenised apart:
what is scored, trained on and decoded is then the same sequence of tokens.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from toolformer_jax.runtime.validation import check

MAX_ARGUMENT_CHARS = 1000
_NAME = re.compile(r'[A-Za-z_]\w*')


@dataclass(frozen=True)
class Call:
  """One API call. `result` is None for a call that was not executed, '' for an empty response."""

  name: str
  argument: str
  result: str | None = None


@dataclass(frozen=True)
class CallSpan:
  """A call found in a text, and the characters text[start:end] that spell it."""

  call: Call
  start: int
  end: int


@dataclass(frozen=True)
class CallSyntax:
  """The three strings that mark a call: `<API>`, the arrow and `</API>` of the paper.

  The arrow is written with a space before it: many tokenizers fuse `)` and `->`.
  """

  start: str = ' ['
  arrow: str = ' ->'
  end: str = ']'

  def __post_init__(self):
    check(self)
    if not all(mark.strip() for mark in (self.start, self.arrow, self.end)):
      raise ValueError(f'a mark of {self!r} is blank')

  def request(self, call: Call) -> str:
    """Returns the call without its result, ` [Name(argument)]`, as prompts spell it."""
    return f'{self.start}{call.name}({call.argument}){self.end}'

  def opening(self, call: Call) -> str:
    """Returns the first piece, ` [Name(argument) ->`."""
    return f'{self.start}{call.name}({call.argument}){self.arrow}'

  def closing(self, result: str) -> str:
    """Returns the second piece, ` result]`; for an empty response, ` ]`."""
    return f' {result}{self.end}'

  def linearise(self, call: Call) -> str:
    """Returns the whole text of `call`.

    Raises:
      ValueError: the text would not read back as the same call, whatever follows it: for instance
        because the argument contains what ends a call or an open parenthesis, or the result a
        bracket.
    """
    if call.result is None:
      text = self.request(call)
    else:
      text = self.opening(call) + self.closing(call.result)
    span = self._read(text, 0, {call.name})
    same = span is not None and span.call == call and span.end == len(text)
    # The end of an unbalanced argument depends on the parentheses in the text that follows.
    if not same or not _balanced(call.argument):
      raise ValueError(f'{call!r} cannot be written as an API call')
    return text

  def find(self, text: str, names: Collection[str]) -> list[CallSpan]:
    """Returns the calls in `text`, left to right; only calls to `names` count.

    Any other bracket is prose, and so is a call without its end.
    """
    spans, at = [], 0
    while (at := text.find(self.start, at)) >= 0:
      span = self._read(text, at, names)
      if span is not None:
        spans.append(span)
      at = span.end if span else at + 1
    return spans

  def read_opening(self, text: str, names: Collection[str]) -> Call | None:
    """Returns the call to one of `names` whose first piece, up to the arrow, begins `text`."""
    name = _NAME.match(text, len(self.start))
    if not text.startswith(self.start) or not name or name[0] not in names:
      return None
    if not text.startswith('(', name.end()):
      return None
    close = self._argument_end(text, name.end() + 1)
    if close is None or not text.startswith(self.arrow, close + 1):
      return None
    return Call(name[0], text[name.end() + 1:close])

  def remove(self, text: str, names: Collection[str]) -> str:
    """Returns `text` without the calls to `names`: the inverse of inserting them."""
    kept, at = [], 0
    for span in self.find(text, names):
      kept.append(text[at:span.start])
      at = span.end
    return ''.join(kept) + text[at:]

  def clean_result(self, result: str, max_chars: int) -> str:
    """Returns `result` as one line of at most `max_chars` that can neither open nor end a call."""
    line = ' '.join(result.split()).replace('[', '(').replace(']', ')').replace('->', '-')
    marks = ['->', *(mark.strip() for mark in (self.start, self.arrow, self.end))]
    # Again and again, since without one mark the text around it may spell another: `->>`.
    while any(mark in line for mark in marks):
      for mark in marks:
        line = ' '.join(line.replace(mark, ' ').split())
    return line if len(line) <= max_chars else line[:max_chars].rsplit(' ', 1)[0]

  def _read(self, text: str, at: int, names: Collection[str]) -> CallSpan | None:
    """Reads the call that starts at text[at], or returns None if there is none."""
    name = _NAME.match(text, at + len(self.start))
    if not text.startswith(self.start, at) or not name or name[0] not in names:
      return None
    if not text.startswith('(', name.end()):
      return None
    begin = name.end() + 1
    close = self._argument_end(text, begin)
    if close is None:
      return None
    argument, after = text[begin:close], close + 1
    if text.startswith(self.end, after):
      return CallSpan(Call(name[0], argument), at, after + len(self.end))
    result_begin = after + len(self.arrow)
    result_end = text.find(self.end, result_begin)
    # A result holds no start of a call: where there is one, this call was never ended.
    if result_end < 0 or self.start in text[result_begin:result_end]:
      return None
    result = text[result_begin:result_end].removeprefix(' ')
    return CallSpan(Call(name[0], argument, result), at, result_end + len(self.end))

  def _argument_end(self, text: str, begin: int) -> int | None:
    """Returns the index of the `)` that ends the argument which begins at `begin`.

    It is the first one before an arrow or an end that leaves the argument's own parentheses
    balanced; where none does, simply the first.
    """
    first, at = None, begin - 1
    while (at := text.find(')', at + 1, begin + MAX_ARGUMENT_CHARS)) >= 0:
      if not text.startswith((self.end, self.arrow), at + 1):
        continue
      if _balanced(text[begin:at]):
        return at
      first = at if first is None else first
    return first


DEFAULT_SYNTAX = CallSyntax()


def _balanced(argument: str) -> bool:
  """Tells whether the parentheses outside of double quotes are balanced."""
  unquoted = re.sub(r'"[^"]*"', '', argument)
  depth = 0
  for character in unquoted:
    depth += (character == '(') - (character == ')')
    if depth < 0:
      return False
  return depth == 0


def unquote(argument: str) -> str:
  """Returns `argument` without the blanks and the pair of quotes around it: both styles occur."""
  argument = argument.strip()
  for quote in ('"', "'"):
    if len(argument) >= 2 and argument[0] == argument[-1] == quote:
      return argument[1:-1].strip()
  return argument


def insert_calls(
    token_ids: Sequence[int],
    calls: Iterable[tuple[int, Call]],
    encode: Callable[[str], list[int]],
    syntax: CallSyntax = DEFAULT_SYNTAX,
) -> list[int]:
  """Returns `token_ids` with each (position, executed call) put before token_ids[position].

  The text's own ids stay as they are (law 1); calls at one position keep their order.

  Raises:
    ValueError: a position is outside the text.
  """
  pieces, at = [], 0
  for position, call in sorted(calls, key=lambda pair: pair[0]):
    if not 0 <= position <= len(token_ids):
      raise ValueError(f'position {position} is outside a text of {len(token_ids)} tokens')
    pieces += token_ids[at:position]
    pieces += encode(syntax.opening(call)) + encode(syntax.closing(call.result or ''))
    at = position
  return pieces + list(token_ids[at:])
