"""The engine: continuous batching of requests that may call tools.

    engine = Engine(model, EngineConfig(slots=32), executor)
    request_id = engine.add_request(prompt_ids, GenerationConfig(max_tokens=64), Context(date=...))
    while engine.has_unfinished_requests():
      for event in engine.step():
        ...

Every request has a row of the KV cache. A row that opens a call waits for its tool while the others
decode; the result is appended to the same row (paper, sections 2 and 4.2). The row of a finished
request is given to the next one. The host reads the tokens after every `STEPS` of them; those that
a row has decoded after the arrow of a call are dropped by setting the row's length back.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent import futures
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from toolformer_jax.calls import DEFAULT_SYNTAX, Call, CallSyntax
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.inference import prefill
from toolformer_jax.inference.batching import busy_first, count_bucket, row_values
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.decoding import STEPS, DecodeRows, SpecialTokens, decode_steps
from toolformer_jax.inference.events import (
  CallFinished,
  CallStarted,
  Event,
  NewText,
  RequestFinished,
  RequestStarted,
)
from toolformer_jax.inference.prefix_cache import PrefixCache
from toolformer_jax.inference.request import DecodingContext, GenerationRequest
from toolformer_jax.inference.warm_up import warm_up
from toolformer_jax.models.adapter_stack import active_number, adapter_number
from toolformer_jax.models.kv_cache import KVCache, new_cache, take_rows
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.oom import explain_out_of_memory

if TYPE_CHECKING:  # tools that read with a language model import this package
  from toolformer_jax.tools.base import Context
  from toolformer_jax.tools.executor import Executor, Outcome

_SHRINK = 4  # the batch shrinks by this factor once only one row in four has work
_NEW_CACHE_SLOTS = 256  # at most, of a new cache; they are doubled where a text needs more
_MAX_SHORT_RESULT = 16  # tokens of a result that decoding steps may read
_FAST_TOOL_S = 0.002  # a result within this time costs its row no decoding step
_OUT_OF_MEMORY = 'lower EngineConfig.slots or GenerationConfig.max_tokens, or shorten the prompts'
# Maximum duration of a step in which all rows wait for tools. A new request waits for its end.
_IDLE_WAIT_S = 0.02


@dataclass
class _Row:
  """A row of the batch: its request, and the call whose tool is running, if there is one."""

  request: GenerationRequest
  context: 'Context | None'
  call: Call | None = None
  outcome: 'futures.Future[Outcome] | None' = None


class Engine:
  """Generates the texts of requests, which may be added at any time.

  An engine must not be used by several threads at once.

  Attributes:
    prefix_cache: keeps beginnings that prompts share; None for none.
  """

  def __init__(self, model: LanguageModel, config: EngineConfig = EngineConfig(),
               executor: 'Executor | None' = None, *, tool_names: Sequence[str] | None = None,
               syntax: CallSyntax = DEFAULT_SYNTAX, prefix_cache: PrefixCache | None = None):
    """Creates an engine without requests.

    Args:
      model: generates the texts.
      config: size of the batch.
      executor: runs the tools; None for no tools.
      tool_names: the tools of the executor that may be called; None for all.
      syntax: how calls are spelled.
      prefix_cache: keeps beginnings that prompts share; it must belong to the same model.
    """
    self._model, self._config, self._executor = model, config, executor
    self._decoding_model = model.with_unrolled_layers() if model.on_one_cpu else model
    names = () if executor is None else executor.tool_names if tool_names is None else tool_names
    self._context = DecodingContext(model.tokenizer, syntax, frozenset(names),
                                    model.tokenizer.single_id(syntax.start),
                                    min(model.config.max_tokens,
                                        config.max_model_len or model.config.max_tokens))
    self._active_adapter = active_number(model)
    self._special = SpecialTokens(
        np.int32(self._context.api_id), np.array(sorted(model.tokenizer.end_ids), np.int32))
    self.prefix_cache = prefix_cache
    self._waiting: deque[_Row] = deque()
    self._rows: list[_Row | None] = []
    self._cache: KVCache | None = None
    self._num_requests = 0

  def add_request(self, prompt_ids: Sequence[int], params: GenerationConfig = GenerationConfig(),
                  context: 'Context | None' = None, tool_names: Collection[str] | None = None,
                  *, add_start_token: bool = True, adapter: str | None = None,
                  logprobs: bool = False) -> int:
    """Adds a request, which starts as soon as a row is free, and returns its id.

    Args:
      prompt_ids: token ids.
      params: how the text is generated.
      context: information about the text for the tools.
      tool_names: the tools of the engine that this text may call; None for all.
      add_start_token: whether the start token, if the tokenizer has one, is prepended.
      adapter: name of one of the model's adapters; None for the model as it is: with the adapter
        that `with_adapter` has chosen, or without any.
      logprobs: whether the events with its text have the log-probabilities of its tokens. Results
        are then read by decoding steps, however long they are.

    Raises:
      UserError: the prompt has more tokens than `max_model_len` or the model allow, none at all, or
        an id that the model does not have; or there is no such tool or adapter.
    """
    request_id, vocab_size = self._num_requests, self._model.config.vocab_size
    for token in prompt_ids:
      if not isinstance(token, int | np.integer) or not 0 <= token < vocab_size:
        raise UserError(f'prompt {request_id}: {token!r} is not a token id; ids are whole numbers '
                        f'below {vocab_size}')
    start = self._model.tokenizer.start_id if add_start_token else None
    prompt = [*([] if start is None else [start]), *map(int, prompt_ids)]
    if not prompt:
      raise UserError(f'prompt {request_id} has no token to continue from')
    if len(prompt) > self._context.max_model_len:
      raise UserError(f'prompt {request_id} has {len(prompt)} tokens, more than the '
                      f'{self._context.max_model_len} that the model and '
                      'EngineConfig.max_model_len allow; shorten it')
    for name in tool_names or ():
      if name not in self._context.tool_names:
        raise unknown('tool', name, self._context.tool_names)
    decoding = self._context
    if tool_names is not None:
      decoding = replace(decoding, tool_names=frozenset(tool_names))
    adapter_id = (self._active_adapter if adapter is None
                  else adapter_number(self._model, adapter))
    self._num_requests += 1
    request = GenerationRequest(decoding, request_id, prompt, params, adapter_id,
                                with_logprobs=logprobs)
    own = self._executor.new_context(context) if self._executor else None
    self._waiting.append(_Row(request, own))
    return request_id

  def abort(self, request_id: int) -> None:
    """Ends a request without an output; no event follows, and its row is free for another one.

    A tool that is running for it is not waited for. The id of a finished or unknown request is
    ignored.
    """
    self._waiting = deque(row for row in self._waiting if row.request.request_id != request_id)
    for i, row in enumerate(self._rows):
      if row and row.request.request_id == request_id:
        self._rows[i] = None
        if row.outcome:
          row.outcome.cancel()

  def warm_up(self) -> None:
    """Compiles all programs, so that no request waits for one; needs `EngineConfig.few_shapes`."""
    if not self._config.few_shapes:
      raise ValueError('only an engine with few shapes can compile all of them')
    warm_up(self._model, self._decoding_model, self._special, self._few_rows(), _NEW_CACHE_SLOTS,
            self._context.max_model_len, with_prefix_cache=self.prefix_cache is not None)

  def has_unfinished_requests(self) -> bool:
    """Returns whether `step` has anything to do."""
    return bool(self._waiting) or any(self._rows)

  def step(self) -> list[Event]:
    """Decodes a few tokens of every request that does not wait for a tool; returns what happened.

    Raises:
      UserError: there is not enough memory.
    """
    events: list[Event] = []
    if not self.has_unfinished_requests():
      self._cache = None  # the last request was aborted
      return events
    with jax.set_mesh(self._model.mesh), explain_out_of_memory(_OUT_OF_MEMORY):
      cache = self._resize()
      admitted = self._admit()
      cache = self._start(cache, admitted, events)
      self._finish_calls(events)
      self._cache = prefill.prefill(self._model, cache, self._take_pending(),
                                    few_shapes=self._config.few_shapes)
      self._store_prefixes(admitted)
      active = [i for i, row in enumerate(self._rows) if row and not row.outcome]
      if active:
        self._decode(active, self._cache, events)
      else:
        outcomes = [row.outcome for row in self._rows if row and row.outcome]
        futures.wait(outcomes, _IDLE_WAIT_S, return_when=futures.FIRST_COMPLETED)
    if not self.has_unfinished_requests():
      self._cache = None  # an idle engine holds no memory
    return events

  def _resize(self) -> KVCache:
    """Grows the batch to what the requests need, or shrinks it by a factor of 4.

    Returns:
      the cache of the batch.
    """
    if self._cache is None:
      return self._new_batch()
    busy = [row is not None for row in self._rows]
    size = len(self._rows)
    wanted = self._batch_rows(sum(busy) + len(self._waiting))
    if self._waiting and wanted > size:
      rows = [*range(size), *[0] * (wanted - size)]  # the new rows are overwritten
    else:
      while not self._waiting and sum(busy) <= size // _SHRINK:
        size //= _SHRINK
      rows = busy_first(busy, size)
    if len(rows) != len(self._rows):
      self._cache = take_rows(self._cache, np.array(rows, np.int32))
      kept = [self._rows[i] for i in rows[:len(self._rows)]]
      self._rows = kept + [None] * (len(rows) - len(kept))
    return self._cache

  def _new_batch(self) -> KVCache:
    """Returns a cache for the waiting requests."""
    self._rows = [None] * self._batch_rows(len(self._waiting))
    longest = max(len(row.request.prompt) + row.request.params.max_tokens for row in self._waiting)
    return self._new_cache(len(self._rows), longest)

  def _new_cache(self, rows: int, tokens: int) -> KVCache:
    slots = _NEW_CACHE_SLOTS if self._config.few_shapes else count_bucket(tokens)
    return new_cache(
        self._model.config, rows, min(_NEW_CACHE_SLOTS, slots),
        'stacked' if self._decoding_model.decoder.scan_layers else 'per_layer')

  def _batch_rows(self, requests: int) -> int:
    """Returns the number of rows for `requests` requests."""
    if not self._config.few_shapes:
      return min(self._config.slots, count_bucket(requests))
    return min((rows for rows in self._few_rows() if rows >= requests), default=self._config.slots)

  def _few_rows(self) -> list[int]:
    """Returns the sizes of a batch that shrinks from all slots."""
    sizes = [self._config.slots]
    while sizes[-1] >= _SHRINK:
      sizes.append(sizes[-1] // _SHRINK)
    return sizes

  def _admit(self) -> list[int]:
    """Gives free rows to waiting requests, in their order; returns these rows."""
    free = [i for i, row in enumerate(self._rows) if row is None][:len(self._waiting)]
    for i in free:
      self._rows[i] = self._waiting.popleft()
    return free

  def _start(self, cache: KVCache, rows: Sequence[int], events: list[Event]) -> KVCache:
    """Copies what the prefix cache has of new prompts into their rows; returns the cache."""
    for i in rows:
      if row := self._rows[i]:
        request, num_cached = row.request, None
        if self.prefix_cache:
          cache, num_cached = self.prefix_cache.restore(
              cache, i, request.prompt, request.adapter_id)
          request.mark_computed(num_cached)
        events.append(RequestStarted(request.request_id, len(request.prompt), num_cached))
    return cache

  def _store_prefixes(self, rows: Sequence[int]) -> None:
    """Keeps the beginnings of new prompts, which are prefilled, for later ones."""
    for i in rows:
      if self.prefix_cache and self._cache and (row := self._rows[i]):
        self.prefix_cache.store(self._cache, i, row.request.prompt, row.request.adapter_id)

  def _finish_calls(self, events: list[Event]) -> None:
    """Inserts the results of tools that have returned."""
    for row in self._rows:
      if row and row.call and row.outcome and row.outcome.done():
        result, failure = _result(row.outcome)
        made = row.request.finish_call(row.call, result, failure)
        events.append(CallFinished(row.request.request_id, made))
        row.call = row.outcome = None
        _add_new_text(row.request, events)

  def _take_pending(self) -> list[prefill.Chunk]:
    """Returns the tokens to prefill; short results are left to the decoding steps.

    In a batch of many rows, a row that reads known tokens costs a decoding step little. Prefill
    computes no log-probabilities.
    """
    requests = {i: row.request for i, row in enumerate(self._rows) if row and not row.outcome}
    short = min(_MAX_SHORT_RESULT, len(requests) // 2)
    chunks = []
    for i, request in requests.items():
      if request.logprobs and request.tokens:
        continue
      if request.num_pending > (short if request.num_computed_tokens else 0):
        tokens = request.pending_tokens[:-1]
        chunks.append(prefill.Chunk(i, request.num_computed_tokens, tokens, request.adapter_id))
        request.mark_computed(len(tokens))
    return chunks

  def _decode(self, active: list[int], cache: KVCache, events: list[Event]) -> None:
    requests = [row.request if row else None for row in self._rows]
    longest = max(request.num_computed_tokens for request in requests if request)
    # A text ends at its last position: what its row decodes after that needs no slot.
    cache = prefill.with_room(cache, min(longest + STEPS, self._context.max_model_len))
    lengths_B = row_values(requests, lambda request: request.num_computed_tokens)
    lengths_B, rows = self._model.put_batch((lengths_B, self._decode_rows(requests)))
    model = self._decoding_model
    tokens_BN, logprobs, self._cache = decode_steps(
        model.decoder, model.variables, cache.with_length(lengths_B), DecodeRows(**rows),
        self._special)
    tokens_BN = np.asarray(tokens_BN).tolist()
    if any(request and request.logprobs for request in requests):
      logprobs = jax.device_get(logprobs)
    for i in active:
      if row := self._rows[i]:
        if row.request.logprobs:
          row.request.put_logprobs(logprobs.row(i).of(tokens_BN[i]))
        self._append_tokens(row, tokens_BN[i], events)
        self._rows[i] = None if row.request.finished else row
    called = [row.outcome for i in active if (row := self._rows[i]) and row.outcome]
    futures.wait(called, timeout=_FAST_TOOL_S)

  def _decode_rows(self, requests: list[GenerationRequest | None]) -> dict[str, np.ndarray]:
    """Returns the inputs of the next decoding steps, by the names of `DecodeRows`, on the host."""
    def of(value: Callable[[GenerationRequest], Any], dtype: Any = np.int32) -> np.ndarray:
      return row_values(requests, value, dtype)
    def pending(request: GenerationRequest | None) -> list[int]:
      tokens = request.pending_tokens[:STEPS + 1] if request else []
      return tokens + [0] * (STEPS + 1 - len(tokens))
    return dict(
        pending_BA=np.array(list(map(pending, requests)), np.int32),
        num_pending_B=of(lambda r: r.num_pending),
        may_call_B=of(lambda r: r.may_start_call, bool),
        forbid_call_B=of(lambda r: r.tools_enabled or r.params.disable_tools, bool),
        top_k_api_B=of(lambda r: r.params.top_k_api),
        min_tokens_left_B=of(lambda r: r.min_tokens_left),
        num_tokens_B=of(lambda r: len(r.tokens) - r.num_pending),
        seed_B=of(lambda r: r.params.seed, np.uint32),
        temperature_B=of(lambda r: r.params.temperature, np.float32),
        top_p_B=of(lambda r: r.params.top_p, np.float32),
        adapter_ids_B=of(lambda r: r.adapter_id),
        wants_logprobs_B=of(lambda r: r.logprobs is not None, bool))

  def _append_tokens(self, row: _Row, decoded: list[int], events: list[Event]) -> None:
    """Appends decoded tokens to a row's request, and starts its tool."""
    request, known = row.request, min(row.request.num_pending, len(decoded))
    request.mark_computed(known)
    row.call = request.append_tokens(decoded[known:])
    _add_new_text(request, events)
    if row.call:
      if self._executor is None:
        raise ValueError('a text has called a tool, and the engine has no executor')
      row.outcome = self._executor.submit_call(row.call.name, row.call.argument,
                                               row.context)
      events.append(CallStarted(request.request_id, row.call))
    if request.finished:
      events.append(RequestFinished(request.request_id, request.output()))


def _add_new_text(request: GenerationRequest, events: list[Event]) -> None:
  events += [NewText(request.request_id, *piece) for piece in request.new_pieces()]


def _result(outcome: 'futures.Future[Outcome]') -> tuple[str | None, str | None]:
  """Returns the result and the failure of a finished call; one of them is None."""
  if outcome.cancelled():
    return None, 'cancelled'
  return outcome.result().result, outcome.result().failure
