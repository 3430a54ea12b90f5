"""Samples many short continuations of many documents, with everything shared that can be.

A few-shot prompt is computed once and read by all documents; a document once, and read by all of
its branches. A branch sees the first tokens of its document up to its own position, and owns only
its few new tokens. Sharing is exact: a branch's tokens are those of a plain forward pass.
"""

import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.inference.batching import count_bucket, length_bucket
from toolformer_jax.models.cache import Cache, Prefix
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel

_STEPS = 4  # tokens decoded per compiled call; finished branches are replaced between calls
_ROWS, _MIN_ROWS = 128, 16  # branches decoded side by side: fewer cost hardly less time
_WIDTH = 8  # rows of a lane: they read a document's keys together
_DRAW_BLOCK = 256


@dataclass(frozen=True)
class Prefilled:
  """Documents whose keys and values are on the device.

  Attributes:
    prompt: cache of the shared prompt, one row.
    documents: cache with a row for each document (and a few unused ones).
    logprobs: for each document log p(token | all before) of the asked token at each place.
  """

  prompt: Cache
  documents: Cache
  logprobs: list[np.ndarray]


@dataclass(frozen=True)
class Branch:
  """A continuation to sample: after the first `visible` tokens of document number `document`.

  `seed` alone decides its random choices, whatever is sampled beside it.
  """

  document: int
  visible: int
  seed: int


@dataclass(frozen=True)
class BranchSettings:
  """How branches are sampled.

  Attributes:
    opening: ids that every branch is forced to begin with.
    first_allowed: [V] bool, which ids may come right after the opening.
    max_tokens: longest continuation after the opening.
    temperature: 0 for greedy.
    finished: tells from a continuation's text (without the opening) whether it is complete.
  """

  opening: tuple[int, ...]
  first_allowed: np.ndarray
  max_tokens: int
  temperature: float
  finished: Callable[[str], bool]


def prefill_prompt(model: LanguageModel, prompt: Sequence[int]) -> Cache:
  """Returns the keys and values of `prompt`, preceded by the start token where there is one."""
  start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
  tokens_1T = np.array([[*start, *prompt]], np.int32)
  with sharding.on_mesh(model.mesh):
    return _prefill_prompt(model.decoder, model.variables, tokens_1T)


def prefill_documents(
    model: LanguageModel, prompt: Cache, documents: Sequence[Sequence[int]],
    token_id: int, watched: Sequence[range],
) -> Prefilled:
  """Computes documents after the prompt, and where in them `token_id` would be likely.

  Args:
    model: the model.
    prompt: from `prefill_prompt`.
    documents: token ids of each document.
    token_id: the token to watch for.
    watched: for each document the indices i at which log p(token_id | prompt, document[:i])
      is wanted; all greater than 0.
  """
  P = count_bucket(len(documents))
  T = length_bucket(max(map(len, documents)))
  M = length_bucket(max(map(len, watched)))
  tokens_PT, at_PM = np.zeros((P, T), np.int32), np.zeros((P, M), np.int32)
  for row, (tokens, indices) in enumerate(zip(documents, watched, strict=True)):
    tokens_PT[row, :len(tokens)] = tokens
    at_PM[row, :len(indices)] = np.array(indices) - 1
  with sharding.on_mesh(model.mesh):
    logprobs_PM, cache = _prefill_documents(
        model.decoder, model.variables, prompt, model.put_batch(tokens_PT),
        model.put_batch(at_PM), token_id)
  logprobs_PM = np.asarray(logprobs_PM)
  return Prefilled(prompt, cache, [logprobs_PM[row, :len(w)] for row, w in enumerate(watched)])


def sample_branches(
    model: LanguageModel, prefilled: Prefilled, branches: Sequence[Branch], settings: BranchSettings
) -> list[str | None]:
  """Returns each branch's continuation (text after the opening), or None if it never finished."""
  return _BranchLoop(model, prefilled, branches, settings).run()


@dataclass
class _Row:
  """What one row of the batch works on: a branch, and its tokens so far, opening included."""

  branch: int | None = None
  tokens: list[int] = field(default_factory=list)


@dataclass
class _Lane:
  """Rows side by side that read the same document."""

  rows: list[_Row]
  document: int = 0

  @property
  def busy(self) -> bool:
    """Whether any row has a branch."""
    return any(row.branch is not None for row in self.rows)


class _BranchLoop:
  """The host side of sampling: fills rows with branches, decodes, takes finished ones out.

  The batch is `lanes` of equal width. A lane takes branches of its document as its rows get free,
  and another document once its own has no more. At the end, busy lanes move together.
  """

  def __init__(self, model, prefilled, branches, settings):
    self.model, self.prefilled, self.branches, self.settings = model, prefilled, branches, settings
    self.waiting: dict[int, deque[int]] = {}
    for i, branch in enumerate(branches):
      self.waiting.setdefault(branch.document, deque()).append(i)
    rows = min(_ROWS, max(_MIN_ROWS, count_bucket(len(branches)) // 4))
    mean = len(branches) // max(1, len(self.waiting))
    self.width = min(_WIDTH, 1 << max(mean, 1).bit_length() - 1)
    self.lanes = [_Lane([_Row() for _ in range(self.width)]) for _ in range(rows // self.width)]
    self.results: list[str | None] = [None] * len(branches)

  def run(self) -> list[str | None]:
    """Decodes until no branch is left."""
    longest = len(self.settings.opening) + self.settings.max_tokens
    slots = -(-(longest + _STEPS) // 16) * 16
    with sharding.on_mesh(self.model.mesh):
      cache = Cache.empty(self.model.config, len(self.lanes) * self.width, slots)
      loaded, documents = None, None
      while self._fill():
        cache = self._narrow(cache)
        if loaded != (loaded := [lane.document for lane in self.lanes]):
          documents = _take_rows(self.prefilled.documents, np.array(loaded, np.int32))
        tokens_BN, cache = self._decode(documents, cache)
        self._collect(np.asarray(tokens_BN), longest)
    return self.results

  @property
  def _rows(self) -> list[_Row]:
    """All rows, in the order of the batch."""
    return [row for lane in self.lanes for row in lane.rows]

  def _fill(self) -> bool:
    """Gives free rows a branch; tells whether any row has work."""
    for lane in self.lanes:
      if not lane.busy and self.waiting:
        lane.document = max(self.waiting, key=lambda d: (len(self.waiting[d]), -d))
      for row in lane.rows:
        if row.branch is None and lane.document in self.waiting:
          row.branch, row.tokens = self._next(lane.document), [self.settings.opening[0]]
    return any(lane.busy for lane in self.lanes)

  def _next(self, document: int) -> int:
    queue = self.waiting[document]
    branch = queue.popleft()
    if not queue:
      del self.waiting[document]
    return branch

  def _narrow(self, cache: Cache) -> Cache:
    """Halves the number of lanes, or more, where that is enough for the busy ones."""
    busy = [i for i, lane in enumerate(self.lanes) if lane.busy]
    size = max(count_bucket(len(busy)), -(-_MIN_ROWS // self.width))
    if size >= len(self.lanes):
      return cache
    idle = [i for i, lane in enumerate(self.lanes) if not lane.busy]
    chosen = [*busy, *idle][:size]
    self.lanes = [self.lanes[i] for i in chosen]
    rows_B = [i * self.width + row for i in chosen for row in range(self.width)]
    return _take_rows(cache, np.array(rows_B, np.int32))

  def _decode(self, documents: Cache, cache: Cache):
    def column(value, dtype):
      return self.model.put_batch(np.array([value(row) for row in self._rows], dtype))
    def of_branch(name):
      return lambda row: 0 if row.branch is None else getattr(self.branches[row.branch], name)
    # A row's cache holds all of its tokens but the last, which is fed next.
    cache = cache.with_length(column(lambda row: max(len(row.tokens) - 1, 0), np.int32))
    return _decode_branches(
        self.model.decoder, self.model.variables, self.prefilled.prompt, documents,
        cache, column(of_branch('visible'), np.int32), column(of_branch('seed'), np.uint32),
        column(lambda row: len(row.tokens), np.int32),
        column(lambda row: row.tokens[-1] if row.tokens else 0, np.int32),
        np.array(self.settings.opening, np.int32), self.settings.first_allowed,
        np.float32(self.settings.temperature))

  def _collect(self, tokens_BN: np.ndarray, longest: int) -> None:
    for row, new in zip(self._rows, tokens_BN.tolist(), strict=True):
      if row.branch is None:
        continue
      row.tokens += new
      text = self._finished_text(row.tokens[len(self.settings.opening):longest])
      if text is not None or len(row.tokens) >= longest:
        self.results[row.branch], row.branch, row.tokens = text, None, []

  def _finished_text(self, tokens: list[int]) -> str | None:
    """Returns the shortest beginning of the continuation that is complete, if any is."""
    text = self.model.tokenizer.decode(tokens)
    if not self.settings.finished(text):
      return None
    for size in range(1, len(tokens) + 1):
      text = self.model.tokenizer.decode(tokens[:size])
      if self.settings.finished(text):
        break
    return text


@functools.partial(jax.jit, static_argnames='decoder')
def _prefill_prompt(decoder: Decoder, variables, tokens_1T) -> Cache:
  cache = Cache.empty(decoder.config, *tokens_1T.shape)
  _, cache = decoder.apply(variables, tokens_1T, cache=cache,
                           logits_at_BM=jnp.zeros((1, 1), jnp.int32))
  return cache


@functools.partial(jax.jit, static_argnames='decoder')
def _prefill_documents(decoder: Decoder, variables, prompt, tokens_PT, at_PM, token_id):
  """Returns log p(token_id) after each place of `at_PM`, [P, M], and the documents' cache."""
  P, T = tokens_PT.shape
  limit_P = jnp.broadcast_to(prompt.length_B, (P,))
  logits_PMV, cache = decoder.apply(
      variables, tokens_PT, cache=Cache.empty(decoder.config, P, T),
      prefixes=[Prefix.of(prompt, limit_P)], logits_at_BM=at_PM)
  logits_PMV = logits_PMV.astype(jnp.float32)
  return logits_PMV[..., token_id] - jax.nn.logsumexp(logits_PMV, -1), cache


@jax.jit
def _take_rows(cache: Cache, rows_B: jax.Array) -> Cache:
  return cache.take(rows_B)


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def _decode_branches(
    decoder: Decoder, variables, prompt: Cache, documents: Cache, cache: Cache,
    visible_B, seeds_B, done_B, last_B, opening_O, first_allowed_V, temperature,
):
  """Decodes the next `_STEPS` tokens of every row, [B, N], and extends the rows' cache.

  A row that has done d tokens is forced to opening_O[d] while there is an opening left.
  """
  B, forced = visible_B.shape[0], opening_O.shape[0]
  prefixes = [Prefix.of(prompt, jnp.broadcast_to(prompt.length_B, (B,))),
              Prefix.of(documents, visible_B)]
  keys_B = jax.vmap(jax.random.key)(seeds_B)
  def step(carry, _):
    cache, done_B, last_B = carry
    logits_B1V, cache = decoder.apply(variables, last_B[:, None], cache=cache, prefixes=prefixes)
    logits_BV = logits_B1V[:, 0].astype(jnp.float32)
    first_B1 = (done_B == forced)[:, None]
    logits_BV = jnp.where(first_B1 & ~first_allowed_V, -jnp.inf, logits_BV)
    step_keys_B = jax.vmap(jax.random.fold_in)(keys_B, done_B)
    drawn_B = jax.vmap(_draw, in_axes=(0, 0, None))(step_keys_B, logits_BV, temperature)
    next_B = jnp.where(done_B < forced, opening_O[jnp.minimum(done_B, forced - 1)], drawn_B)
    return (cache, done_B + 1, next_B), next_B
  (cache, _, _), tokens_NB = jax.lax.scan(step, (cache, done_B, last_B), length=_STEPS)
  return tokens_NB.T, cache


def _draw(key: jax.Array, logits_V: jax.Array, temperature: jax.Array) -> jax.Array:
  """Draws one id by inverting the cumulative distribution; the likeliest at temperature 0.

  One random number a token: Gumbel noise over the vocabulary would cost as much as the model. The
  sum runs over blocks, then inside of one, as a cumulative sum over the whole vocabulary is slow.
  """
  V = logits_V.shape[0]
  weights_V = jnp.exp((logits_V - logits_V.max()) / jnp.maximum(temperature, 1e-6))
  weights_XY = jnp.pad(weights_V, (0, -V % _DRAW_BLOCK)).reshape(-1, _DRAW_BLOCK)
  blocks_X = jnp.cumsum(weights_XY.sum(-1))
  target = jax.random.uniform(key) * blocks_X[-1]
  block = jnp.minimum((blocks_X <= target).sum(), blocks_X.shape[0] - 1)
  rest = target - jnp.where(block > 0, blocks_X[block - 1], 0)
  inside_Y = jnp.cumsum(weights_XY[block])
  # Rounding may leave the target at a sum's very end: never draw an id of no weight.
  rest = jnp.minimum(rest, jnp.nextafter(inside_Y[-1], 0))
  drawn = block * _DRAW_BLOCK + (inside_Y <= rest).sum()
  return jnp.where(temperature > 0, drawn, logits_V.argmax()).astype(jnp.int32)
