"""One text that is being continued: its tokens, the calls in it, and where it ends. No arrays."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from toolformer_jax.calls import Call, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.validation import check
from toolformer_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class GenerationConfig:
  """How texts are decoded; greedy, as in the paper, unless the temperature is raised.

  Attributes:
    max_tokens: longest continuation, call and result not counted.
    top_k_api: start a call wherever the start of one is among this many likeliest tokens
      (section 4.2; 1 is plain decoding).
    max_calls: most calls in one text.
    disabled: never start a call.
    max_call_tokens: a call that has not reached its arrow by then is taken back.
    slots: texts decoded side by side.
    temperature: 0 for greedy.
    top_p: draw from the likeliest tokens that have this probability together.
    seed: of all draws.
    stop: a text ends before the first of these strings, calls and results not looked at.
    min_tokens: a text does not end by itself before it has so many tokens, calls and results not
      counted.
    max_words: a text ends after so many words, which stand between blanks, calls and results not
      counted; 0 for no such end.
  """

  max_tokens: int = 64
  top_k_api: int = 10
  max_calls: int = 1
  disabled: bool = False
  max_call_tokens: int = 48
  slots: int = 8
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int = 0
  stop: tuple[str, ...] = ()
  min_tokens: int = 0
  max_words: int = 0

  def __post_init__(self):
    check(self, max_tokens=(1, 100_000), top_k_api=(1, 1_000_000), max_calls=(0, 1000),
          max_call_tokens=(1, 1000), slots=(1, 10_000), temperature=(0.0, 10.0),
          top_p=(1e-6, 1.0), seed=(0, 2**31), max_words=(0, 100_000),
          min_tokens=(0, 100_000))
    if not all(isinstance(text, str) and text for text in self.stop):
      raise UserError(f'GenerationConfig.stop must hold strings, none empty, not {self.stop!r}')


@dataclass(frozen=True)
class MadeCall:
  """A call that a text made; `result` is None if its tool had none, and the call was taken back."""

  call: Call
  failure: str | None = None


@dataclass(frozen=True)
class Generated:
  """A continuation: its tokens with calls and results, its text, and the calls that it made.

  Where a stop string or the number of words ended it, the tokens go on to the one that told so.
  """

  tokens: list[int]
  text: str
  calls: list[MadeCall]


@dataclass(frozen=True)
class Rules:
  """What all continuations of a run have in common.

  Attributes:
    settings, tokenizer, syntax: how texts are decoded, spelled and call.
    names: those that calls may have.
    api_id: the token that starts a call.
    max_positions: tokens that the model can read; a text ends there.
  """

  settings: GenerationConfig
  tokenizer: Tokenizer
  syntax: CallSyntax
  names: frozenset[str]
  api_id: int
  max_positions: int

  @property
  def calls_enabled(self) -> bool:
    """Whether any text may make a call."""
    return bool(self.names) and not self.settings.disabled and self.settings.max_calls > 0


class Continuation:
  """A text after its prompt, as far as it is decoded.

  Attributes:
    request: the number of its prompt.
    prompt: ids, the start token included.
    tokens: ids after the prompt.
    seed: of its draws.
    done: whether it has ended.
    unread: tokens that the model's cache does not hold, besides the last one.
  """

  def __init__(self, rules: Rules, request: int, prompt: Sequence[int], seed: int):
    """Begins a continuation."""
    self.request, self.prompt, self.seed = request, list(prompt), seed
    self.tokens: list[int] = []
    self.done = False
    self.unread = len(self.prompt) - 1
    self._rules = rules
    self._calls: list[MadeCall] = []
    self._may_call = rules.calls_enabled
    self._call_start: int | None = None  # index into tokens at which an unfinished call begins
    self._plain_tokens = 0  # outside of calls
    self._plain_start = 0  # index into tokens at which the text since the last call begins
    self._plain_before = ''  # the text before that, without calls
    self._end: int | None = None  # of the text in characters, where a stop string ended it
    self._told = 0  # characters that `news` has given

  @property
  def ahead(self) -> list[int]:
    """The ids to feed next, those that the model's cache does not hold: `unread` and one more."""
    own = self.tokens[-1 - self.unread:]
    return self.prompt[len(self.prompt) + len(own) - 1 - self.unread:] + own

  @property
  def length(self) -> int:
    """Tokens that the model's cache holds."""
    return len(self.prompt) + len(self.tokens) - 1 - self.unread

  @property
  def may_start_call(self) -> bool:
    """Whether the next token may be the start of a call."""
    return self._may_call and self._call_start is None

  @property
  def owed(self) -> int:
    """Tokens that must still come before the text may end by itself."""
    if self._call_start is not None:  # an end in a call only takes the call back
      return 0
    return max(0, self._rules.settings.min_tokens - self._plain_tokens)

  def read(self, tokens: int) -> None:
    """Takes in that the model's cache holds so many more tokens, which were `ahead`."""
    self.unread -= tokens

  def take_in(self, new: Sequence[int]) -> Call | None:
    """Adds decoded tokens up to where the text must stop.

    Returns:
      a call that has reached its arrow and is to be run, if that is why.
    """
    for token in new:
      if self._call_start is None:
        self._add(token)
        if self.done:
          return None
      else:
        self.tokens.append(token)
      if self._call_start is not None:
        call = self._open_call(token)
        if call or self._call_start is None:  # to be run, or taken back
          return call
    return None

  def answer(self, call: Call, result: str | None, failure: str | None) -> None:
    """Puts the result of the call that is waited for into the text, or takes the call back.

    What of it the model has not read is `unread`.
    """
    if result is None:
      self._take_back(MadeCall(call, failure))
      return
    done = Call(call.name, call.argument, result)
    # Spelled anew in its two pieces, so that what is decoded is what was trained on.
    encode, syntax = self._rules.tokenizer.encode, self._rules.syntax
    spelled = [*encode(syntax.opening(done)), *encode(syntax.closing(result))]
    if not self._has_room(self._call_start + len(spelled)):
      self._take_back(MadeCall(call, 'the model has no positions left for the result'))
      return
    self._calls.append(MadeCall(done))
    self._plain_before = self._plain(self._call_start)
    read = self.tokens[self._call_start:-1]  # the last was not fed
    same = next((i for i, (old, new) in enumerate(zip(read, spelled, strict=False)) if old != new),
                min(len(read), len(spelled)))
    self.tokens[self._call_start:] = spelled
    self.unread = len(spelled) - 1 - same
    self._call_start, self._plain_start = None, len(self.tokens)
    self._may_call = len(self._calls) < self._rules.settings.max_calls

  def news(self) -> str:
    """Returns the text that is final and was not returned before.

    An unfinished call may be taken back, half a character be completed and half a stop string as
    well: these are held back.
    """
    text = self._text(self.tokens[:self._call_start])
    if not self.done:
      text = text.rstrip('\ufffd')
      held = (size for stop in self._rules.settings.stop for size in range(1, len(stop))
              if text.endswith(stop[:size]))
      text = text[:len(text) - max(held, default=0)]
    new, self._told = text[self._told:], max(self._told, len(text))
    return new

  def generated(self) -> Generated:
    """Returns what has become of it."""
    return Generated(self.tokens, self._text(self.tokens), self._calls)

  def _text(self, tokens: list[int]) -> str:
    return self._rules.tokenizer.decode(tokens)[:self._end]

  def _add(self, token: int) -> None:
    """Adds a token outside of calls, or the first one of a call."""
    if token in self._rules.tokenizer.end_ids:
      self.done = True
      return
    if token == self._rules.api_id and self.may_start_call:
      self.done = self._has_words(self._plain())
      if self.done:  # no call can change them
        return
      self._call_start = len(self.tokens)
    self.tokens.append(token)
    if self._call_start is None:
      self._plain_tokens += 1
      self.done = (self._stopped() or self._worded()
                   or self._plain_tokens >= self._rules.settings.max_tokens
                   or not self._has_room(len(self.tokens)))

  def _has_room(self, tokens: int) -> bool:
    """Tells whether the model can read one more after the prompt and so many tokens."""
    return len(self.prompt) + tokens < self._rules.max_positions

  def _stopped(self) -> bool:
    """Tells whether a stop string is complete, and ends the text before it."""
    if not self._rules.settings.stop:
      return False
    text = self._rules.tokenizer.decode(self.tokens[self._plain_start:])
    found = [text.find(stop) for stop in self._rules.settings.stop if stop in text]
    if found:
      self._end = len(self._text(self.tokens[:self._plain_start])) + min(found)
    return bool(found)

  def _plain(self, end: int | None = None) -> str:
    """Returns the text without its calls, of the tokens up to `end`."""
    return self._plain_before + self._rules.tokenizer.decode(self.tokens[self._plain_start:end])

  def _has_words(self, plain: str) -> bool:
    """Tells whether `plain` has as many words as a text may have."""
    most = self._rules.settings.max_words
    return 0 < most <= len(plain.split())

  def _worded(self) -> bool:
    """Tells whether the last word is complete, and ends the text after it."""
    plain = self._plain() if self._rules.settings.max_words else ''
    words = list(re.finditer(r'\S+', plain))[:self._rules.settings.max_words]
    if not self._has_words(plain) or words[-1].end() == len(plain):
      return False
    rest = max(words[-1].end() - len(self._plain_before), 0)
    self._end = len(self._text(self.tokens[:self._plain_start])) + rest
    return True

  def _open_call(self, token: int) -> Call | None:
    """Returns the unfinished call once it has reached its arrow; takes it back if it never will."""
    tokens = self.tokens[self._call_start:]
    text = self._rules.tokenizer.decode(tokens)
    call = self._rules.syntax.read_opening(text, self._rules.names)
    over = token in self._rules.tokenizer.end_ids or '\n' in text or self._rules.syntax.end in text
    too_long = len(tokens) >= self._rules.settings.max_call_tokens
    if call is None and (over or too_long or not self._has_room(len(self.tokens))):
      self._take_back(None)
    return call

  def _take_back(self, made: MadeCall | None) -> None:
    """Removes the unfinished call, and lets the text go on without any more."""
    del self.tokens[self._call_start:]
    self._call_start, self._may_call = None, False
    if made is not None:
      self._calls.append(made)
