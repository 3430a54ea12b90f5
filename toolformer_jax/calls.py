"""The grammar of API calls in text: write, read, insert and remove them (paper, section 2).

A call without a result is ` [Name(argument)]`, with a result ` [Name(argument) -> result]`. The
text of a call always consists of two pieces, ` [Name(argument) ->` and ` result]`, which are
tokenized separately: scoring, training and decoding then see the same sequence of tokens.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from toolformer_jax.runtime.validation import check

Item = TypeVar('Item')

MAX_ARGUMENT_CHARS = 1000
_NAME = re.compile(r'[A-Za-z_]\w*')


@dataclass(frozen=True)
class Call:
  """One API call. `result` is None if the call was not executed, '' if the response is empty."""

  name: str
  argument: str
  result: str | None = None


@dataclass(frozen=True)
class CallSpan:
  """A call found in a text; its characters are text[start:end]."""

  call: Call
  start: int
  end: int


@dataclass(frozen=True)
class CallSyntax:
  """The three strings that mark a call: `<API>`, the arrow and `</API>` of the paper.

  Attributes:
    start: what begins a call.
    arrow: between the call and its result. It begins with a space because many tokenizers merge
      `)->` into one token.
    end: what ends a result.
  """

  start: str = ' ['
  arrow: str = ' ->'
  end: str = ']'

  def __post_init__(self) -> None:
    check(self)
    if not all(mark.strip() for mark in (self.start, self.arrow, self.end)):
      raise ValueError(f'{self!r}: start, arrow and end must not be blank')

  def request(self, call: Call) -> str:
    """Returns the call without its result, ` [Name(argument)]`, as it is written in prompts."""
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
      ValueError: the text would not be parsed as the same call in every context, for instance
        because the argument has an unbalanced parenthesis or the opening of another call, or the
        result has a bracket.
    """
    if call.result is None:
      text = self.request(call)
    else:
      text = self.opening(call) + self.closing(call.result)
    span = self._read(text, 0, {call.name})
    same = span is not None and span.call == call and span.end == len(text)
    # Where an unbalanced argument ends depends on the parentheses in the text that follows.
    if not same or not _balanced(call.argument):
      raise ValueError(f'{call!r} cannot be written as an API call')
    return text

  def find(self, text: str, names: Collection[str]) -> list[CallSpan]:
    """Returns the calls to tools in `names` in `text`, from left to right.

    Everything else is plain text: other brackets, and calls that are not closed.
    """
    spans, at = [], 0
    while (at := text.find(self.start, at)) >= 0:
      span = self._read(text, at, names)
      if span is not None:
        spans.append(span)
      at = span.end if span else at + 1
    return spans

  def has_opening(self, text: str) -> bool:
    """Tells whether something in `text` reads as the beginning of a call to any tool, ` [Name(`.

    Whether it is a call can depend on calls that are inserted after it.
    """
    return re.search(rf'{re.escape(self.start)}{_NAME.pattern}\(', text) is not None

  def read_opening(self, text: str, names: Collection[str]) -> Call | None:
    """Returns the call that `text` begins with, up to the arrow; None if there is none."""
    found = self._read_request(text, 0, names)
    if found is None or not text.startswith(self.arrow, found[1]):
      return None
    return found[0]

  def remove(self, text: str, names: Collection[str]) -> str:
    """Returns `text` without the calls to `names`: the inverse of inserting them."""
    kept, at = [], 0
    for span in self.find(text, names):
      kept.append(text[at:span.start])
      at = span.end
    return ''.join(kept) + text[at:]

  def clean_result(self, result: str, max_chars: int) -> str:
    """Returns `result` as one line of at most `max_chars` that cannot open or close a call."""
    line = ' '.join(result.split()).replace('[', '(').replace(']', ')').replace('->', '-')
    marks = ['->', *(mark.strip() for mark in (self.start, self.arrow, self.end))]
    # Repeated because the removal of one mark can create another: `-->>`.
    while any(mark in line for mark in marks):
      for mark in marks:
        line = ' '.join(line.replace(mark, ' ').split())
    return line if len(line) <= max_chars else line[:max_chars].rsplit(' ', 1)[0]

  def _read(self, text: str, at: int, names: Collection[str]) -> CallSpan | None:
    """Returns the call that starts at text[at], or None if there is none."""
    found = self._read_request(text, at, names)
    if found is None:
      return None
    call, after = found
    if text.startswith(self.end, after):
      return CallSpan(call, at, after + len(self.end))
    result_begin = after + len(self.arrow)
    result_end = text.find(self.end, result_begin)
    # A result never contains the start of a call. If it seems to, this call was never closed.
    if result_end < 0 or self.start in text[result_begin:result_end]:
      return None
    result = text[result_begin:result_end].removeprefix(' ')
    return CallSpan(Call(call.name, call.argument, result), at, result_end + len(self.end))

  def _read_request(self, text: str, at: int, names: Collection[str]) -> tuple[Call, int] | None:
    """Returns the call that starts at text[at], and the index after its `)`.

    The index is that of an arrow or an end. An argument never contains the opening of another call:
    if it seems to, this call was never closed, and the other one may be a call.
    """
    name = _NAME.match(text, at + len(self.start))
    if not text.startswith(self.start, at) or not name or name[0] not in names:
      return None
    if not text.startswith('(', name.end()):
      return None
    close = self._argument_end(text, name.end() + 1)
    if close is None:
      return None
    argument = text[name.end() + 1:close]
    if self.has_opening(argument):
      return None
    return Call(name[0], argument), close + 1

  def _argument_end(self, text: str, begin: int) -> int | None:
    """Returns the index of the `)` that closes the argument that begins at `begin`.

    It is the first `)` before an arrow or an end at which the parentheses of the argument are
    balanced; if there is none, the first `)` before an arrow or an end.
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
  """Returns whether the parentheses outside double quotes are balanced."""
  unquoted = re.sub(r'"[^"]*"', '', argument)
  depth = 0
  for character in unquoted:
    depth += (character == '(') - (character == ')')
    if depth < 0:
      return False
  return depth == 0


def unquote(argument: str) -> str:
  """Returns `argument` without surrounding whitespace and one pair of quotes, single or double."""
  argument = argument.strip()
  for quote in ('"', "'"):
    if len(argument) >= 2 and argument[0] == argument[-1] == quote:
      return argument[1:-1].strip()
  return argument


def insert_calls(
    token_ids: Sequence[Item],
    calls: Iterable[tuple[int, Call]],
    encode: Callable[[str], list[Item]],
    syntax: CallSyntax = DEFAULT_SYNTAX,
) -> list[Item]:
  """Returns `token_ids` with each (position, executed call) inserted before token_ids[position].

  The ids of the text do not change. Other values of tokens are inserted likewise if `encode`
  returns such. Calls at the same position keep their order.

  Raises:
    ValueError: a position is outside the text.
  """
  pieces: list[Item] = []
  at = 0
  for position, call in sorted(calls, key=lambda pair: pair[0]):
    if not 0 <= position <= len(token_ids):
      raise ValueError(f'position {position} is outside a text of {len(token_ids)} tokens')
    pieces += token_ids[at:position]
    pieces += encode(syntax.opening(call)) + encode(syntax.closing(call.result or ''))
    at = position
  return pieces + list(token_ids[at:])
