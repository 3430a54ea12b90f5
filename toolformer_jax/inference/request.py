"""The state of one generated text: its tokens, its calls, and where it ends. No arrays."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from toolformer_jax.calls import Call, CallSyntax
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.token_logprobs import LogprobBuffer, TokenLogprobs
from toolformer_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class ToolCall:
  """A call in a generated text.

  Attributes:
    call: its `result` is None if the tool returned none; then the call is not in the text.
    failure: why there is no result.
  """

  call: Call
  failure: str | None = None


# Why a text ended, in OpenAI's words: by itself or as its request says, or because it was cut.
FinishReason = Literal['stop', 'length']


@dataclass(frozen=True)
class GeneratedText:
  """A finished continuation.

  Attributes:
    token_ids: with calls and results. Where a stop string or the number of words ended the text,
      they include the token that completed it.
    text: the continuation with its calls.
    calls: in their order, also those that were removed.
    finish_reason: 'stop' for the end token, a stop string or the last word; 'length' for
      `max_tokens` or the positions of the model.
  """

  token_ids: list[int]
  text: str
  calls: list[ToolCall]
  finish_reason: FinishReason = 'stop'


class Piece(NamedTuple):
  """The next piece of a text; see `NewText`."""

  text: str
  is_call: bool = False
  logprobs: Sequence[TokenLogprobs] = ()


@dataclass(frozen=True)
class DecodingContext:
  """What the requests of one engine share.

  Attributes:
    tokenizer: between texts and token ids.
    syntax: how calls are spelled.
    tool_names: tools that may be called.
    api_id: the token that starts a call.
    max_model_len: maximum number of tokens of a text with its prompt; it ends there.
  """

  tokenizer: Tokenizer
  syntax: CallSyntax
  tool_names: frozenset[str]
  api_id: int
  max_model_len: int


class GenerationRequest:
  """The state of one text: its prompt, and the tokens that were generated so far.

  Attributes:
    request_id: given by the engine.
    prompt: ids, including the start token.
    params: how it is generated.
    adapter_id: number of its adapter, where the model has a stack of them.
    logprobs: the log-probabilities of its tokens; None if they are not wanted.
    tokens: ids after the prompt.
    finish_reason: why the text has ended; None before.
    num_pending: number of tokens that are not in the KV cache yet, without the last one.
  """

  def __init__(self, context: DecodingContext, request_id: int, prompt: Sequence[int],
               params: GenerationConfig, adapter_id: int = 0, *, with_logprobs: bool = False):
    """Creates a request without generated tokens."""
    self.request_id, self.prompt, self.params = request_id, list(prompt), params
    self.adapter_id = adapter_id
    self.logprobs = LogprobBuffer(context.tokenizer) if with_logprobs else None
    self.tokens: list[int] = []
    self.finish_reason: FinishReason | None = None
    self.num_pending = len(self.prompt) - 1
    self._context = context
    self._calls: list[ToolCall] = []
    self._may_call = self.tools_enabled and params.max_calls > 0
    self._call_start: int | None = None  # index into tokens at which an unfinished call begins
    self._num_plain_tokens = 0  # outside of calls
    self._plain_start = 0  # index into tokens at which the text since the last call begins
    self._plain_before = ''  # the text before that, without calls
    self._end: int | None = None  # length of the text in characters, if a stop string ended it
    self._num_emitted = 0  # characters that `new_pieces` has returned
    self._call_spans: list[tuple[int, int]] = []  # of finished calls, in characters of the text

  @property
  def finished(self) -> bool:
    """Whether the text has ended."""
    return self.finish_reason is not None

  @property
  def tools_enabled(self) -> bool:
    """Whether the text may have calls at all."""
    return bool(self._context.tool_names) and not self.params.disable_tools

  @property
  def pending_tokens(self) -> list[int]:
    """The ids that are not in the KV cache yet: `num_pending` and one more."""
    own = self.tokens[-1 - self.num_pending:]
    return self.prompt[len(self.prompt) + len(own) - 1 - self.num_pending:] + own

  @property
  def num_computed_tokens(self) -> int:
    """Number of tokens in the KV cache."""
    return len(self.prompt) + len(self.tokens) - 1 - self.num_pending

  @property
  def may_start_call(self) -> bool:
    """Whether the next token may be the start of a call."""
    return self._may_call and self._call_start is None

  @property
  def min_tokens_left(self) -> int:
    """Number of tokens before the end of the text may be sampled."""
    if self._call_start is not None:  # an end token in a call only removes the call
      return 0
    return max(0, self.params.min_tokens - self._num_plain_tokens)

  def mark_computed(self, tokens: int) -> None:
    """Records that the first `tokens` of the pending tokens are in the KV cache now."""
    self.num_pending -= tokens

  def put_logprobs(self, new: Sequence[TokenLogprobs]) -> None:
    """Keeps the log-probabilities of the tokens after the one that is computed next.

    The first of these are pending; the others are appended after this call.
    """
    if self.logprobs:
      self.logprobs.put(len(self.tokens) - self.num_pending, new)

  def append_tokens(self, new: Sequence[int]) -> Call | None:
    """Appends decoded tokens, up to the end of the text or the arrow of a call.

    Returns:
      the call that has reached its arrow and has to be executed, if there is one.
    """
    for token in new:
      if self._call_start is None:
        self._add(token)
        if self.finished:
          return None
      else:
        self.tokens.append(token)
      if self._call_start is not None:
        call = self._open_call(token)
        if call or self._call_start is None:  # complete, or removed
          return call
    return None

  def finish_call(self, call: Call, result: str | None, failure: str | None) -> ToolCall:
    """Inserts the result of the open call into the text; without a result the call is removed.

    Tokens of the call and its result that are not in the KV cache become pending.

    Returns:
      the call with its result, or, if it was removed, with the reason.
    """
    if result is None:
      return self._remove_failed_call(call, failure)
    finished = Call(call.name, call.argument, result)
    # Encoded again in its two pieces, as in training, so that the ids are the same.
    encode, syntax = self._context.tokenizer.encode, self._context.syntax
    spelled = [*encode(syntax.opening(finished)), *encode(syntax.closing(result))]
    if self._call_start is None:
      raise ValueError('no call is open')
    if not self._has_room(self._call_start + len(spelled)):
      return self._remove_failed_call(call, 'the model has no positions left for the result')
    made = ToolCall(finished)
    self._calls.append(made)
    self._plain_before = self._plain(self._call_start)
    start = len(self._text(self.tokens[:self._call_start]))
    cached = self.tokens[self._call_start:-1]  # the last one is not in the cache
    same = next((i for i, (old, new) in enumerate(zip(cached, spelled, strict=False))
                 if old != new), min(len(cached), len(spelled)))
    if self.logprobs and self.tokens[self._call_start + same] != spelled[same]:
      same -= 1  # the token before the first other one is computed again, for its log-probability
    self.tokens[self._call_start:] = spelled
    self.num_pending = len(spelled) - 1 - same
    self._call_start, self._plain_start = None, len(self.tokens)
    self._call_spans.append((start, len(self._text(self.tokens))))
    self._may_call = len(self._calls) < self.params.max_calls
    return made

  def new_pieces(self) -> list[Piece]:
    """Returns the new text that cannot change any more, cut where calls begin and end.

    An unfinished call, an incomplete character and the beginning of a stop string are held back,
    and a finished call whose result has no log-probabilities yet.
    """
    if self.logprobs and self.tokens and self.num_pending:
      return []
    text = self._text(self.tokens[:self._call_start])
    if not self.finished:
      text = text.rstrip('\ufffd')
      after_calls = text[self._call_spans[-1][1] if self._call_spans else 0:]
      held = (size for stop in self.params.stop for size in range(1, len(stop))
              if after_calls.endswith(stop[:size]))
      text = text[:len(text) - max(held, default=0)]
    pieces, at = [], self._num_emitted
    for start, end in self._call_spans:
      pieces += [Piece(text[at:start]), Piece(text[max(at, start):end], is_call=True)]
      at = max(at, end)
    pieces.append(Piece(text[at:]))
    self._num_emitted = max(self._num_emitted, len(text))
    pieces = [piece for piece in pieces if piece.text]
    if self.logprobs:
      whole = self.tokens[:self._call_start]
      pieces = [piece._replace(logprobs=self.logprobs.take(whole, len(piece.text)))
                for piece in pieces]
    return pieces

  def output(self) -> GeneratedText:
    """Returns the finished continuation."""
    if self.finish_reason is None:
      raise ValueError('the text is not finished')
    return GeneratedText(self.tokens, self._text(self.tokens), self._calls, self.finish_reason)

  def _text(self, tokens: list[int]) -> str:
    return self._context.tokenizer.decode(tokens)[:self._end]

  def _add(self, token: int) -> None:
    """Adds a token outside of calls, or the first one of a call."""
    if token in self._context.tokenizer.end_ids:
      self.finish_reason = 'stop'
      return
    if token == self._context.api_id and self.may_start_call:
      if self._has_max_words(self._plain()):  # a call cannot change them
        self.finish_reason = 'stop'
        return
      self._call_start = len(self.tokens)
    self.tokens.append(token)
    if self._call_start is None:
      self._num_plain_tokens += 1
      if self._ends_at_stop_string() or self._ends_at_last_word():
        self.finish_reason = 'stop'
      elif (self._num_plain_tokens >= self.params.max_tokens
            or not self._has_room(len(self.tokens))):
        self.finish_reason = 'length'

  def _has_room(self, tokens: int) -> bool:
    """Returns whether the model has a position left after the prompt and `tokens` more."""
    return len(self.prompt) + tokens < self._context.max_model_len

  def _ends_at_stop_string(self) -> bool:
    """Returns whether the text contains a stop string, and ends it there if so."""
    if not self.params.stop:
      return False
    text = self._context.tokenizer.decode(self.tokens[self._plain_start:])
    starts = [text.find(stop) for stop in self.params.stop if stop in text]
    if starts:
      self._end = len(self._text(self.tokens[:self._plain_start])) + min(starts)
    return bool(starts)

  def _plain(self, end: int | None = None) -> str:
    """Returns the text without its calls, of the tokens up to `end`."""
    return self._plain_before + self._context.tokenizer.decode(self.tokens[self._plain_start:end])

  def _has_max_words(self, plain: str) -> bool:
    """Returns whether `plain` has `max_words` words."""
    return 0 < self.params.max_words <= len(plain.split())

  def _ends_at_last_word(self) -> bool:
    """Returns whether the last of `max_words` words is complete, and ends the text after it."""
    plain = self._plain() if self.params.max_words else ''
    words = list(re.finditer(r'\S+', plain))[:self.params.max_words]
    if not self._has_max_words(plain) or words[-1].end() == len(plain):
      return False
    rest = max(words[-1].end() - len(self._plain_before), 0)
    self._end = len(self._text(self.tokens[:self._plain_start])) + rest
    return True

  def _open_call(self, token: int) -> Call | None:
    """Returns the open call once it has reached its arrow; removes it if it never will."""
    tokens = self.tokens[self._call_start:]
    text = self._context.tokenizer.decode(tokens)
    call = self._context.syntax.read_opening(text, self._context.tool_names)
    over = (token in self._context.tokenizer.end_ids or '\n' in text
            or self._context.syntax.end in text)
    too_long = len(tokens) >= self.params.max_call_tokens
    if call is None and (over or too_long or not self._has_room(len(self.tokens))):
      self._remove_call()
    return call

  def _remove_failed_call(self, call: Call, failure: str | None) -> ToolCall:
    """Removes the open call, and keeps that it has failed."""
    self._remove_call()
    self._calls.append(ToolCall(call, failure))
    return self._calls[-1]

  def _remove_call(self) -> None:
    """Removes the open call; the text continues without further calls."""
    del self.tokens[self._call_start:]
    self._call_start, self._may_call = None, False
