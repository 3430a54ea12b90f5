"""Samples many short continuations of many documents, with everything shared that can be.

A few-shot prompt is computed once and read by all documents; a document once, and read by all of
its branches. A branch sees the first tokens of its document up to its own position, and owns only
its few new tokens; branches of one position are computed once for as long as they draw the same
tokens. Sharing is exact: a branch's tokens are those of a plain forward pass.
"""

import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.inference.batching import count_bucket
from toolformer_jax.inference.shared_prefix import Prefilled
from toolformer_jax.inference.token_sampling import draw
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.kv_cache import Cache, Prefix, new_cache, take_rows
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.oom import naming_memory

_MIN_ROWS = 16  # decoded side by side: fewer cost hardly less time
_WIDTH = 8  # rows of a lane: they read a document's keys together
_BRANCHES_PER_ROW = 5  # of a place, on average, while they draw the same tokens


@dataclass(frozen=True)
class Branch:
  """A continuation to sample: after the first `visible` tokens of document number `document`.

  `seed` alone decides its random choices, whatever is sampled beside it.
  """

  document: int
  visible: int
  seed: int


@dataclass(frozen=True)
class BranchConfig:
  """How branches are sampled.

  Attributes:
    opening: ids that every branch is forced to begin with.
    first_allowed: [V] bool, which ids may come right after the opening.
    max_tokens: longest continuation after the opening.
    temperature: 0 for greedy.
    top_p: share of the probability that tokens are drawn from, the likeliest ones.
    finished: tells from a continuation's text (without the opening) whether it is complete.
  """

  opening: tuple[int, ...]
  first_allowed: np.ndarray
  max_tokens: int
  temperature: float
  top_p: float
  finished: Callable[[str], bool]


def sample_branches(
    model: LanguageModel, prefilled: Prefilled, branches: Sequence[Branch], settings: BranchConfig
) -> list[str | None]:
  """Returns each branch's continuation (text after the opening), or None if it never finished.

  Raises:
    UserError: there is not enough memory.
  """
  with naming_memory('ModelConfig.sampling_rows'):
    return _BranchLoop(model, prefilled, branches, settings).run()


@dataclass
class _Node:
  """Branches of one place whose tokens so far are the same: they are computed once.

  Attributes:
    document, visible: the place.
    branches: their indices.
    tokens: what they all have drawn, after the opening that is forced.
  """

  document: int
  visible: int
  branches: list[int]
  tokens: list[int]

  @property
  def load(self) -> int:
    """How many rows it is likely to need at a time, once its branches differ."""
    return -(-len(self.branches) // _BRANCHES_PER_ROW)


@dataclass
class _Row:
  """A row of the batch: a node, or none, and how many of its tokens are in the row's cache."""

  node: _Node | None = None
  fed: int = 0


@dataclass
class _Lane:
  """Rows side by side that read the same document."""

  rows: list[_Row]
  document: int = 0

  @property
  def load(self) -> int:
    """How many of its rows are taken, or soon will be."""
    return sum(row.node.load for row in self.rows if row.node)


class _BranchLoop:
  """The host side of sampling: fills rows with nodes, decodes, parts those that differ.

  Equal branches are one node and take one row. Once they draw different tokens, a copy of the row
  goes to a free row for each of them; where there is none, the new node waits, and feeds its tokens
  again when it gets one. A lane takes nodes of its document as its rows get free, and another
  document once its own has no more. At the end, busy lanes move together.
  """

  def __init__(self, model, prefilled, branches, settings):
    self.model, self.prefilled, self.branches, self.settings = model, prefilled, branches, settings
    self.waiting: dict[int, deque[_Node]] = {}
    nodes = _place_nodes(branches, settings.opening)
    for node in nodes:
      self.waiting.setdefault(node.document, deque()).append(node)
    self.group = count_bucket(max((len(node.branches) for node in nodes), default=1))
    load = sum(node.load for node in nodes)
    most = 1 << model.sampling_rows.bit_length() - 1
    rows = min(most, max(_MIN_ROWS, count_bucket(load) // 2))
    mean = load // max(1, len(self.waiting))
    self.width = min(_WIDTH, rows, 1 << max(mean, 1).bit_length() - 1)
    self.lanes = [_Lane([_Row() for _ in range(self.width)]) for _ in range(rows // self.width)]
    self.results: list[str | None] = [None] * len(branches)

  def run(self) -> list[str | None]:
    """Decodes until no branch is left."""
    slots = -(-(len(self.settings.opening) + self.settings.max_tokens) // 16) * 16
    with sharding.on_mesh(self.model.mesh):
      cache = new_cache(self.model.config, len(self.lanes) * self.width, slots)
      loaded, documents = None, None
      while self._fill():
        cache = self._narrow(cache)
        if loaded != (loaded := [lane.document for lane in self.lanes]):
          documents = None  # before there are others: each takes as much memory as the cache
          documents = take_rows(self.prefilled.documents, np.array(loaded, np.int32))
        drawn_BW, cache = self._decode(documents, cache)
        cache = self._part(np.asarray(drawn_BW), cache)
    return self.results

  @property
  def _rows(self) -> list[_Row]:
    """All rows, in the order of the batch."""
    return [row for lane in self.lanes for row in lane.rows]

  def _fill(self) -> bool:
    """Gives free rows a node; tells whether any row has work."""
    for lane in self.lanes:
      if not lane.load and self.waiting:
        lane.document = max(self.waiting, key=lambda d: (len(self.waiting[d]), -d))
      for row in lane.rows:
        queue = self.waiting.get(lane.document)
        if row.node or not queue:
          continue
        if lane.load and lane.load + queue[0].load > self.width:
          break
        row.node, row.fed = queue.popleft(), 0
        if not queue:
          del self.waiting[lane.document]
    return any(lane.load for lane in self.lanes)

  def _narrow(self, cache: Cache) -> Cache:
    """Leaves a power of two of lanes, where fewer are enough for the busy ones."""
    busy = [i for i, lane in enumerate(self.lanes) if lane.load]
    load = sum(self.lanes[i].load for i in busy)
    needed = max(len(busy), -(-load // self.width), -(-_MIN_ROWS // self.width))
    size = count_bucket(needed)
    if size >= len(self.lanes):
      return cache
    idle = [i for i, lane in enumerate(self.lanes) if not lane.load]
    chosen = [*busy, *idle][:size]
    self.lanes = [self.lanes[i] for i in chosen]
    rows_B = [i * self.width + row for i in chosen for row in range(self.width)]
    return take_rows(cache, np.array(rows_B, np.int32))

  def _decode(self, documents: Cache, cache: Cache):
    """Feeds every row's next token, and draws the one after it for each branch of the row."""
    def column(value, dtype=np.int32):
      return self.model.put_batch(np.array([value(row) for row in self._rows], dtype))
    def of_node(value):
      return lambda row: value(row.node) if row.node else 0
    def seeds(row):
      used = [self.branches[i].seed for i in row.node.branches] if row.node else []
      return used + [0] * (self.group - len(used))
    cache = cache.with_length(column(lambda row: row.fed))
    return _decode_branches(
        self.model.decoder, self.model.variables, self.prefilled.prompt, documents, cache,
        column(of_node(lambda node: node.visible)), column(seeds, np.uint32),
        column(of_node(lambda node: len(node.tokens))),
        column(lambda row: row.node.tokens[row.fed] if row.node else 0),
        column(of_node(lambda node: len(node.tokens) == len(self.settings.opening)), bool),
        self.settings.first_allowed, np.float32(self.settings.temperature),
        np.float32(self.settings.top_p))

  def _part(self, drawn_BW: np.ndarray, cache: Cache) -> Cache:
    """Takes in what was drawn: ends branches, and gives those that differ rows of their own."""
    parted = []
    for place, row in enumerate(self._rows):
      if row.node is None:
        continue
      row.fed += 1
      if row.fed == len(row.node.tokens):  # else it was fed what is known
        row.node, *others = self._successors(row.node, drawn_BW[place].tolist()) or [None]
        parted += [(place, row.fed, node) for node in others]
    return self._copy(parted, cache)

  def _successors(self, node: _Node, drawn: list[int]) -> list[_Node]:
    """Returns the nodes that follow, one for each different token, without finished ones."""
    by_token: dict[int, list[int]] = {}
    for branch, token in zip(node.branches, drawn, strict=False):
      by_token.setdefault(token, []).append(branch)
    opening, unfinished = len(self.settings.opening), []
    for token, branches in by_token.items():
      tokens = [*node.tokens, token]
      text = self.model.tokenizer.decode(tokens[opening:])
      if self.settings.finished(text):
        for branch in branches:
          self.results[branch] = text
      elif len(tokens) < opening + self.settings.max_tokens:
        unfinished.append(_Node(node.document, node.visible, branches, tokens))
    return unfinished

  def _copy(self, parted: list[tuple[int, int, _Node]], cache: Cache) -> Cache:
    """Copies rows for new nodes (row to copy, tokens in its cache, node), or lets them wait."""
    copies = []
    for source, fed, node in parted:
      place = self._free_row(node.document)
      if place is None:
        self.waiting.setdefault(node.document, deque()).appendleft(node)
      else:
        row = self._rows[place]
        row.node, row.fed = node, fed
        copies.append((source, place))
    if not copies:
      return cache
    size, rows = count_bucket(len(copies), _MIN_ROWS), len(self._rows)
    copies += [(0, rows)] * (size - len(copies))  # out of range: not written
    from_R, to_R = np.array(copies, np.int32).T
    return _copy_rows(cache, from_R, to_R)

  def _free_row(self, document: int) -> int | None:
    """Returns a free row that reads `document`, or could; None if there is none."""
    for idle in (False, True):
      for i, lane in enumerate(self.lanes):
        if (not lane.load) if idle else (lane.load and lane.document == document):
          for j, row in enumerate(lane.rows):
            if row.node is None:
              lane.document = document
              return i * self.width + j
    return None


def _place_nodes(branches: Sequence[Branch], opening: tuple[int, ...]) -> list[_Node]:
  """Returns the nodes to begin with: one for each place."""
  nodes: dict[tuple[int, int], _Node] = {}
  for i, branch in enumerate(branches):
    place = (branch.document, branch.visible)
    nodes.setdefault(place, _Node(*place, [], list(opening))).branches.append(i)
  return list(nodes.values())


@functools.partial(jax.jit, donate_argnames='cache')
def _copy_rows(cache: Cache, from_R: jax.Array, to_R: jax.Array) -> Cache:
  return cache.put(to_R, cache.take(from_R))


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def _decode_branches(
    decoder: Decoder, variables, prompt: Cache, documents: Cache, cache: Cache,
    visible_B, seeds_BW, count_B, last_B, first_B, first_allowed_V, temperature, top_p,
):
  """Feeds `last_B`, and draws the next token for each seed, [B, W]; extends the rows' cache."""
  B = visible_B.shape[0]
  prefixes = [Prefix.of(prompt, jnp.broadcast_to(prompt.length_B, (B,))),
              Prefix.of(documents, visible_B)]
  logits_B1V, cache = decoder.apply(variables, last_B[:, None], cache=cache, prefixes=prefixes)
  logits_BV = logits_B1V[:, 0].astype(jnp.float32)
  logits_BV = jnp.where(first_B[:, None] & ~first_allowed_V, -jnp.inf, logits_BV)
  return draw(logits_BV, seeds_BW, count_B, temperature, top_p), cache
