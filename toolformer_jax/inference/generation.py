"""Decodes many texts side by side, and lets them call tools on the way (paper, sections 2 and 4.2).

Rows are independent slots: a row that opens a call waits for its tool while the others go on, and
a finished row is replaced by the next request. The host looks at the text after every few tokens;
what a row has written past the end of a call is rolled back by setting its cache's length.
"""

import functools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.calls import DEFAULT_SYNTAX, Call, CallSyntax
from toolformer_jax.inference.batching import count_bucket, length_bucket
from toolformer_jax.models.cache import Cache
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.settings import check

_STEPS = 8  # tokens decoded per compiled call
_SLOTS = 64  # of a new cache; it doubles where a text needs more


@dataclass(frozen=True)
class GenerationSettings:
  """How texts are decoded; greedy, as in the paper.

  Attributes:
    max_tokens: longest continuation, call and result not counted.
    top_k_api: start a call wherever the start of one is among this many likeliest tokens
      (section 4.2; 1 is plain greedy decoding).
    max_calls: most calls in one text.
    disabled: never start a call.
    max_call_tokens: a call that has not reached its arrow by then is taken back.
    slots: texts decoded side by side.
  """

  max_tokens: int = 64
  top_k_api: int = 10
  max_calls: int = 1
  disabled: bool = False
  max_call_tokens: int = 48
  slots: int = 8

  def __post_init__(self):
    check(self, max_tokens=(1, 100_000), top_k_api=(1, 1_000_000), max_calls=(0, 1000),
          max_call_tokens=(1, 1000), slots=(1, 10_000))


@dataclass(frozen=True)
class MadeCall:
  """A call that a text made; `result` is None if its tool had none, and the call was taken back."""

  call: Call
  failure: str | None = None


@dataclass(frozen=True)
class Generated:
  """A continuation: its tokens with calls and results, its text, and the calls that it made."""

  tokens: list[int]
  text: str
  calls: list[MadeCall]


# Starts a call for request number n; the future gives (result, failure), one of them None.
RunCall = Callable[[Call, int], futures.Future[tuple[str | None, str | None]]]


def generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]], *, settings: GenerationSettings,
    tool_names: Sequence[str] = (), run_call: RunCall | None = None,
    syntax: CallSyntax = DEFAULT_SYNTAX,
) -> list[Generated]:
  """Returns the greedy continuation of each of `prompts` (token ids).

  A call that is malformed or whose tool has no result is taken back, and the text goes on as if
  there had been none, without further calls (the paper does not say).

  Args:
    model: the model.
    prompts: token ids; the start token is put before them where there is one.
    settings: how to decode.
    tool_names: names that calls may have.
    run_call: runs a tool in the background.
    syntax: how calls are spelled.
  """
  return _Generation(model, prompts, settings, tool_names, run_call, syntax).run()


@dataclass
class _Row:
  """A slot's text. The cache holds all of prompt and tokens but the last, which is fed next."""

  request: int
  prompt: list[int]
  tokens: list[int] = field(default_factory=list)
  calls: list[MadeCall] = field(default_factory=list)
  call_start: int | None = None  # index into tokens at which an unfinished call begins
  plain_tokens: int = 0  # tokens outside of calls
  waiting: futures.Future | None = None
  pending: Call | None = None
  may_call: bool = True

  @property
  def last(self) -> int:
    return (self.tokens or self.prompt)[-1]

  @property
  def length(self) -> int:
    """Tokens that the cache must hold before the next step."""
    return len(self.prompt) + len(self.tokens) - 1


class _Generation:
  """The host side of generation."""

  def __init__(self, model, prompts, settings, tool_names, run_call, syntax):
    self.model, self.settings, self.syntax = model, settings, syntax
    self.names, self.run_call = set(tool_names), run_call
    start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
    self.queue = deque(_Row(i, [*start, *prompt]) for i, prompt in enumerate(prompts))
    self.api_id = model.tokenizer.single_id(syntax.start)
    self.rows: list[_Row | None] = [None] * min(settings.slots, count_bucket(len(prompts)))
    self.results: list[Generated | None] = [None] * len(prompts)

  def run(self) -> list[Generated]:
    """Decodes until every request is answered."""
    with sharding.on_mesh(self.model.mesh):
      cache = Cache.empty(self.model.config, len(self.rows), _SLOTS)
      while self.queue or any(self.rows):
        cache = self._admit(cache)
        cache = self._resume_answered(cache)
        active = [row is not None and row.waiting is None for row in self.rows]
        if any(active):
          cache = self._decode(cache, np.array(active))
        else:
          futures.wait([row.waiting for row in self.rows if row and row.waiting],
                       return_when=futures.FIRST_COMPLETED)
    return self.results

  def _admit(self, cache: Cache) -> Cache:
    """Gives free slots the next requests, and computes their prompts."""
    places = [i for i, row in enumerate(self.rows) if row is None][:len(self.queue)]
    for place in places:
      self.rows[place] = self.queue.popleft()
    return self._extend(cache, [(i, 0, self.rows[i].prompt[:-1]) for i in places])

  def _resume_answered(self, cache: Cache) -> Cache:
    """Puts the results of finished tools into their rows."""
    work = []
    for place, row in enumerate(self.rows):
      if row is None or row.waiting is None or not row.waiting.done():
        continue
      (result, failure), call = row.waiting.result(), row.pending
      row.waiting = row.pending = None
      begin = row.call_start
      if result is None:
        self._take_back(row, MadeCall(call, failure))
        continue
      done = Call(call.name, call.argument, result)
      row.calls.append(MadeCall(done))
      # Spelled anew in its two pieces, so that what is decoded is what was trained on.
      spelled = [*self.model.tokenizer.encode(self.syntax.opening(done)),
                 *self.model.tokenizer.encode(self.syntax.closing(result))]
      fed_from = len(row.prompt) + begin - 1
      row.tokens[begin:] = spelled
      row.call_start = None
      row.may_call = len(row.calls) < self.settings.max_calls
      before = (row.prompt + row.tokens)[fed_from]
      work.append((place, fed_from, [before, *spelled[:-1]]))
    return self._extend(cache, work)

  def _take_back(self, row: _Row, made: MadeCall | None) -> None:
    """Removes the unfinished call from a row and lets it go on without."""
    del row.tokens[row.call_start:]
    row.call_start, row.may_call = None, False
    if made is not None:
      row.calls.append(made)

  def _extend(self, cache: Cache, work: list[tuple[int, int, list[int]]]) -> Cache:
    """Feeds (row, length of its cache before, tokens) in one batch."""
    work = [item for item in work if item[2]]
    if not work:
      return cache
    R, T = count_bucket(len(work)), length_bucket(max(len(tokens) for _, _, tokens in work))
    rows_R, lengths_R = np.full(R, len(self.rows), np.int32), np.zeros(R, np.int32)
    tokens_RT = np.zeros((R, T), np.int32)
    for r, (place, length, tokens) in enumerate(work):
      rows_R[r], lengths_R[r], tokens_RT[r, :len(tokens)] = place, length, tokens
    cache = _with_room(cache, max(length + len(tokens) for _, length, tokens in work))
    return _extend_rows(self.model.decoder, self.model.variables, cache, rows_R, lengths_R,
                        tokens_RT)

  def _decode(self, cache: Cache, active_B: np.ndarray) -> Cache:
    rows = [row or _Row(-1, [0]) for row in self.rows]
    may_call_B = np.array([
        active and row.may_call and row.call_start is None and self._tools_enabled
        for active, row in zip(active_B, rows, strict=True)])
    put = self.model.put_batch
    cache = _with_room(cache, max(row.length for row in rows) + _STEPS)
    cache = cache.with_length(put(np.array([row.length for row in rows], np.int32)))
    tokens_BN, cache = _decode_rows(
        self.model.decoder, self.model.variables, cache,
        put(np.array([row.last for row in rows], np.int32)), put(may_call_B), self.api_id,
        self.settings.top_k_api, bool(self.names) or self.settings.disabled)
    for place, new in enumerate(np.asarray(tokens_BN).tolist()):
      if active_B[place]:
        self._take_in(place, self.rows[place], new)
    return cache

  @property
  def _tools_enabled(self) -> bool:
    return bool(self.names) and not self.settings.disabled and self.settings.max_calls > 0

  def _take_in(self, place: int, row: _Row, new: list[int]) -> None:
    """Adds decoded tokens to a row up to where it has to stop: a call's arrow, or its end."""
    for token in new:
      if row.call_start is None and token in self.model.tokenizer.end_ids:
        return self._finish(place, row)
      if row.call_start is None and token == self.api_id and row.may_call and self._tools_enabled:
        row.call_start = len(row.tokens)
      row.tokens.append(token)
      if row.call_start is not None:
        if self._watch_call(row):
          return None
      else:
        row.plain_tokens += 1
        if row.plain_tokens >= self.settings.max_tokens:
          return self._finish(place, row)
    return None

  def _watch_call(self, row: _Row) -> bool:
    """Starts the tool of a call that reached its arrow; tells whether the row must stop here."""
    tokens = row.tokens[row.call_start:]
    text = self.model.tokenizer.decode(tokens)
    call = self.syntax.read_opening(text, self.names)
    if call is not None:
      row.pending = call
      row.waiting = self.run_call(call, row.request)
      return True
    if len(tokens) >= self.settings.max_call_tokens or self.syntax.end in text or '\n' in text:
      self._take_back(row, None)
      return True
    return False

  def _finish(self, place: int, row: _Row) -> None:
    text = self.model.tokenizer.decode(row.tokens)
    self.results[row.request] = Generated(row.tokens, text, row.calls)
    self.rows[place] = None


def _with_room(cache: Cache, tokens: int) -> Cache:
  """Returns `cache` with room for `tokens` tokens a row, in as few different sizes as may be."""
  return cache if tokens <= cache.slots else _grow(cache, count_bucket(tokens))


@functools.partial(jax.jit, static_argnames='slots')
def _grow(cache: Cache, slots: int) -> Cache:
  return cache.grow(slots)


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def _extend_rows(decoder: Decoder, variables, cache: Cache, rows_R, lengths_R, tokens_RT) -> Cache:
  """Feeds tokens to some rows of the cache; rows past its end are ignored."""
  some = cache.take(rows_R).with_length(lengths_R)
  _, some = decoder.apply(variables, tokens_RT, cache=some,
                          logits_at_BM=jnp.zeros((rows_R.shape[0], 1), jnp.int32))
  return cache.put(rows_R, some)


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def _decode_rows(
    decoder: Decoder, variables, cache: Cache, last_B, may_call_B, api_id, top_k, guard_api
):
  """Decodes `_STEPS` tokens of every row greedily, [B, N].

  Where a row may call, the call's first token is chosen if it is among the `top_k` likeliest, once
  at most. With `guard_api` that token is chosen nowhere else.
  """
  def step(carry, _):
    cache, last_B, may_call_B = carry
    logits_B1V, cache = decoder.apply(variables, last_B[:, None], cache=cache)
    logits_BV = logits_B1V[:, 0].astype(jnp.float32)
    rank_B = (logits_BV > logits_BV[:, api_id, None]).sum(-1)
    start_B = may_call_B & (rank_B < top_k)
    api_logit_B = jnp.where(guard_api, -jnp.inf, logits_BV[:, api_id])
    plain_B = logits_BV.at[:, api_id].set(api_logit_B).argmax(-1)
    next_B = jnp.where(start_B, api_id, plain_B).astype(jnp.int32)
    return (cache, next_B, may_call_B & ~start_B), next_B
  (cache, _, _), tokens_NB = jax.lax.scan(step, (cache, last_B, may_call_B), length=_STEPS)
  return tokens_NB.T, cache
