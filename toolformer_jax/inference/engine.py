"""Decodes many texts side by side, and lets them call tools on the way (paper, sections 2 and 4.2).

Rows are independent slots: a row that opens a call waits for its tool while the others go on, and
a finished row is replaced by the next request. The host looks at the text after every few tokens;
what a row has written past the end of a call is rolled back by setting its cache's length.
"""

import functools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.calls import DEFAULT_SYNTAX, Call, CallSyntax
from toolformer_jax.inference import prefill as feeding
from toolformer_jax.inference.batching import count_bucket
from toolformer_jax.inference.prefill import Missing
from toolformer_jax.inference.request import (
  Continuation,
  Generated,
  GenerationConfig,
  Rules,
)
from toolformer_jax.inference.token_sampling import draw
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.kv_cache import AnyCache, new_cache, take_rows
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.oom import naming_memory

STEPS = 4  # tokens decoded per compiled call
_NARROWER = 4  # a batch shrinks by this once so few of its rows have work: 1 in 4, 1 in 16
_SLOTS = 256  # of a new cache, at most; it doubles where a text needs more
_SHORT = 16  # tokens of a result that decoding steps may feed
_PATIENCE = 0.002  # seconds: for an answer that comes at once no row sits out a compiled call

# Starts a call for request number n; the future gives (result, failure), one of them None.
RunCall = Callable[[Call, int], futures.Future[tuple[str | None, str | None]]]


def generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]], *, settings: GenerationConfig,
    tool_names: Sequence[str] = (), run_call: RunCall | None = None,
    syntax: CallSyntax = DEFAULT_SYNTAX, seeds: Sequence[int] | None = None,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Generated]:
  """Returns the continuation of each of `prompts` (token ids).

  A call that is malformed or whose tool has no result is taken back, and the text goes on as if
  there had been none, without further calls (the paper does not say).

  Args:
    model: the model.
    prompts: token ids; the start token is put before them where there is one.
    settings: how to decode.
    tool_names: names that calls may have.
    run_call: runs a tool in the background.
    syntax: how calls are spelled.
    seeds: 0 to 2^32 - 1, of each text's draws, which depend on nothing else; by default
      `settings.seed` and the numbers after it.
    on_text: is given the number of a prompt and a piece of its continuation as soon as it is final;
      the pieces of a text make up all of it.

  Raises:
    UserError: there is not enough memory.
    ValueError: a prompt has no token, and there is no start token.
  """
  tokenizer = model.tokenizer
  start = [] if tokenizer.start_id is None else [tokenizer.start_id]
  if not start and not all(prompts):
    raise ValueError(f'prompt {list(map(bool, prompts)).index(False)} has no token to go on from')
  seeds = range(settings.seed, settings.seed + len(prompts)) if seeds is None else seeds
  rules = Rules(settings, tokenizer, syntax, frozenset(tool_names),
                tokenizer.single_id(syntax.start), model.config.max_positions)
  texts = [Continuation(rules, i, [*start, *prompt], seed)
           for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))]
  with naming_memory('GenerationConfig.slots, or the texts,'):
    _Generation(model, rules, texts, run_call, on_text).run()
  return [text.generated() for text in texts]


@dataclass
class _Slot:
  """A text, the call that it waits for, and who will bring the result."""

  text: Continuation
  call: Call | None = None
  answer: futures.Future | None = None


class _Generation:
  """The host side of generation: gives slots texts, decodes, runs tools, takes texts out."""

  def __init__(self, model, rules, texts, run_call, on_text):
    self.model, self.rules, self.run_call, self.on_text = model, rules, run_call, on_text
    self.queue = deque(texts)
    self.slots: list[_Slot | None] = [None] * min(rules.settings.slots, count_bucket(len(texts)))
    self.decoding_model = model.unrolled() if model.on_one_cpu else model

  def run(self) -> None:
    """Decodes until every text is done."""
    with sharding.on_mesh(self.model.mesh):
      longest = max((len(text.prompt) for text in self.queue), default=1)
      slots = min(_SLOTS, count_bucket(longest + self.rules.settings.max_tokens))
      unrolled = not self.decoding_model.decoder.scan
      cache = new_cache(self.model.config, len(self.slots), slots, unrolled)
      while self.queue or any(self.slots):
        cache = self._narrow(cache)
        self._admit()
        self._resume_answered()
        cache = feeding.feed(self.model, cache, self._take_missing())
        active = [slot is not None and slot.answer is None for slot in self.slots]
        if any(active):
          cache = self._decode(cache, np.array(active))
        else:
          futures.wait([slot.answer for slot in self.slots if slot and slot.answer],
                       return_when=futures.FIRST_COMPLETED)

  def _narrow(self, cache: AnyCache) -> AnyCache:
    """Moves the last texts into fewer slots once nothing waits for one."""
    busy, size = [i for i, slot in enumerate(self.slots) if slot], len(self.slots)
    while not self.queue and len(busy) <= size // _NARROWER:
      size //= _NARROWER
    if size == len(self.slots):
      return cache
    rows = [*busy, *(i for i in range(len(self.slots)) if i not in busy)][:size]
    self.slots = [self.slots[i] for i in rows]
    return take_rows(cache, np.array(rows, np.int32))

  def _admit(self) -> None:
    """Gives free slots the next texts."""
    for place in [i for i, slot in enumerate(self.slots) if slot is None][:len(self.queue)]:
      self.slots[place] = _Slot(self.queue.popleft())

  def _resume_answered(self) -> None:
    """Puts the results of finished tools into their texts."""
    for slot in self.slots:
      if slot and slot.answer and slot.answer.done():
        slot.text.answer(slot.call, *slot.answer.result())
        slot.call = slot.answer = None
        self._tell(slot.text)

  def _take_missing(self) -> list[Missing]:
    """Returns what is to be fed now, as read; a short result is fed by the steps of decoding.

    A step costs little more for one row that reads beside many that write.
    """
    texts = {i: slot.text for i, slot in enumerate(self.slots) if slot and slot.answer is None}
    short = min(_SHORT, len(texts) // 2)
    missing = {place: text.ahead[:-1] for place, text in texts.items()
               if text.unread > (short if text.length else 0)}
    work = [Missing(place, texts[place].length, tokens) for place, tokens in missing.items()]
    for place, tokens in missing.items():
      texts[place].read(len(tokens))
    return work

  def _decode(self, cache: AnyCache, active_B: np.ndarray) -> AnyCache:
    texts = [slot.text if slot else None for slot in self.slots]
    def column(value, dtype=np.int32):
      return self.model.put_batch(np.array([value(text) if text else 0 for text in texts], dtype))
    cache = feeding.with_room(cache, max(text.length for text in texts if text) + STEPS)
    cache = cache.with_length(column(lambda text: text.length))
    def ahead(text):
      tokens = text.ahead[:STEPS + 1] if text else []
      return tokens + [0] * (STEPS + 1 - len(tokens))
    settings, model = self.rules.settings, self.decoding_model
    tokens_BN, cache = decode_rows(
        model.decoder, model.variables, cache,
        model.put_batch(np.array([ahead(text) for text in texts], np.int32)),
        column(lambda text: text.unread), column(lambda text: text.may_start_call, bool),
        column(lambda text: text.seed, np.uint32),
        column(lambda text: len(text.tokens) - text.unread), column(lambda text: text.owed),
        self.rules.api_id, np.array(sorted(self.rules.tokenizer.end_ids), np.int32),
        settings.top_k_api, bool(self.rules.names) or settings.disabled,
        np.float32(settings.temperature), np.float32(settings.top_p))
    tokens_BN = np.asarray(tokens_BN).tolist()
    decoded = np.flatnonzero(active_B)
    for place in decoded:
      self._take_in(place, tokens_BN[place])
    called = [self.slots[i].answer for i in decoded if self.slots[i] and self.slots[i].answer]
    futures.wait(called, timeout=_PATIENCE)
    return cache

  def _take_in(self, place: int, new: list[int]) -> None:
    """Adds decoded tokens to a text; starts its tool, or frees its slot."""
    slot = self.slots[place]
    known = min(slot.text.unread, len(new))
    slot.text.read(known)
    slot.call = slot.text.take_in(new[known:])
    if slot.call:
      slot.answer = self.run_call(slot.call, slot.text.request)
    self._tell(slot.text)
    if slot.text.done:
      self.slots[place] = None

  def _tell(self, text: Continuation) -> None:
    """Passes on what is new in a text."""
    if self.on_text and (news := text.news()):
      self.on_text(text.request, news)


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def decode_rows(
    decoder: Decoder, variables, cache: AnyCache, ahead_BA, known_B, may_call_B, seed_B, count_B,
    owed_B, api_id, end_ids_E, top_k, guard_api, temperature, top_p
):
  """Decodes `STEPS` tokens of every row, [B, N].

  Each row is fed the first of its `ahead_BA`, A = N + 1. The `known_B` ones that follow there are
  not decoded but taken from it.

  Where a row may call, the call's first token is chosen if it is among the `top_k` likeliest, once
  at most. With `guard_api` that token is chosen nowhere else. The next `owed_B` tokens of a row end
  no text.
  """
  def step(carry, ahead):
    cache, last_B, may_call_B, count_B, owed_B = carry
    n, following_B = ahead
    open_B = n >= known_B
    logits_B1V, cache = decoder.apply(variables, last_B[:, None], cache=cache)
    logits_BV = logits_B1V[:, 0].astype(jnp.float32)
    rank_B = (logits_BV > logits_BV[:, api_id, None]).sum(-1)
    start_B = may_call_B & open_B & (rank_B < top_k)
    api_logit_B = jnp.where(guard_api, -jnp.inf, logits_BV[:, api_id])
    end_BE = jnp.where(owed_B[:, None] > 0, -jnp.inf, logits_BV[:, end_ids_E])
    plain_BV = logits_BV.at[:, api_id].set(api_logit_B).at[:, end_ids_E].set(end_BE)
    drawn_B = draw(plain_BV, seed_B[:, None], count_B, temperature, top_p)[:, 0]
    next_B = jnp.where(start_B, api_id, drawn_B)
    next_B = jnp.where(open_B, next_B, following_B).astype(jnp.int32)
    owed_B = jnp.where(start_B, 0, owed_B - open_B)  # nothing is owed inside of a call
    return (cache, next_B, may_call_B & ~start_B, count_B + 1, owed_B), next_B
  (cache, *_), tokens_NB = jax.lax.scan(
      step, (cache, ahead_BA[:, 0], may_call_B, count_B, owed_B),
      (jnp.arange(STEPS), ahead_BA[:, 1:].T))
  return tokens_NB.T, cache
