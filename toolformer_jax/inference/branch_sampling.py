"""Samples many short continuations of many documents, and shares computation among them.

A few-shot prompt is computed once for all documents, and a document once for all of its branches.
A branch attends to the first tokens of its document, up to its own position, and caches only its
own few tokens. Branches of one position are computed once as long as their tokens are the same.
Sharing is exact: the tokens of a branch are those of a plain forward pass.
"""

import functools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.inference.batching import busy_first, count_bucket, count_tokens, row_values
from toolformer_jax.inference.shared_prefix import PrefilledDocuments
from toolformer_jax.inference.token_sampling import sample
from toolformer_jax.models.decoder import Decoder, apply_with_cache
from toolformer_jax.models.kv_cache import KVCache, Prefix, new_cache, take_rows
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.oom import explain_out_of_memory

_MIN_ROWS = 16  # of a batch: fewer take hardly less time
_GROUP_ROWS = 8  # rows that attend to the same document
_BRANCHES_PER_ROW = 5  # of one position, on average, while their tokens are the same


@dataclass(frozen=True)
class Branch:
  """A continuation to sample.

  Attributes:
    document: index of the document.
    visible: the branch follows the first `visible` tokens of the document.
    seed: of its samples, which do not depend on other branches.
  """

  document: int
  visible: int
  seed: int


@dataclass(frozen=True)
class BranchConfig:
  """How branches are sampled.

  Attributes:
    opening: ids that every branch begins with.
    first_allowed_V: bool, the ids that may follow the opening.
    max_tokens: maximum number of tokens after the opening.
    temperature: 0 for greedy decoding.
    top_p: sample from the likeliest tokens whose probabilities add up to this.
    is_finished: returns whether a continuation, its text without the opening, is complete.
  """

  opening: tuple[int, ...]
  first_allowed_V: np.ndarray
  max_tokens: int
  temperature: float
  top_p: float
  is_finished: Callable[[str], bool]


def sample_branches(
    model: LanguageModel, prefilled: PrefilledDocuments, branches: Sequence[Branch],
    config: BranchConfig, *, sampling_rows: int = 128, counts: Counter[str] | None = None,
) -> list[str | None]:
  """Returns the text of each branch after the opening; None for those that do not finish.

  Args:
    model: the model.
    prefilled: the prompt and the documents.
    branches: what to sample.
    config: how to sample.
    sampling_rows: maximum number of rows of a batch. Results depend on it only by rounding.
    counts: gets the numbers of tokens that are needed and computed, see `batching`.

  Raises:
    UserError: there is not enough memory.
  """
  with explain_out_of_memory('lower sampling_rows'):
    return _BranchSampler(model, prefilled, branches, config, sampling_rows).run(counts)


class BranchRows(NamedTuple):
  """The inputs of a sampling step for B rows; rows without work have zeros.

  Attributes:
    visible_B: number of tokens of its document that a row attends to; int32.
    last_token_B: the id to read; int32.
    is_first_B: whether the next token is the first one after the opening; bool.
    num_tokens_B: number of tokens of the branch so far; int32.
    seeds_BW: of the W branches that share a row; uint32.
    temperature_B, top_p_B: as in `token_sampling.sample`; float32.
  """

  visible_B: jax.Array
  last_token_B: jax.Array
  is_first_B: jax.Array
  num_tokens_B: jax.Array
  seeds_BW: jax.Array
  temperature_B: jax.Array | np.ndarray
  top_p_B: jax.Array | np.ndarray


@dataclass
class _Node:
  """Branches of one position whose tokens so far are the same, and are computed once.

  Attributes:
    document, visible: the position.
    branches: their indices.
    tokens: the ids of all of them, including the opening.
  """

  document: int
  visible: int
  branches: list[int]
  tokens: list[int]

  @property
  def load(self) -> int:
    """Number of rows that it is likely to need once its branches differ."""
    return -(-len(self.branches) // _BRANCHES_PER_ROW)


@dataclass
class _Row:
  """A row of the batch: its node, if any, and how many of the node's tokens are cached."""

  node: _Node | None = None
  num_computed_tokens: int = 0


@dataclass
class _Group:
  """Adjacent rows that attend to the same document."""

  rows: list[_Row]
  document: int = 0

  @property
  def load(self) -> int:
    """Number of its rows that are taken, or soon will be."""
    return sum(row.node.load for row in self.rows if row.node)


class _BranchSampler:
  """The host loop: assigns nodes to rows, decodes, and splits nodes whose branches differ.

  Branches with equal tokens are one node and take one row. When their tokens differ, the row is
  copied to a free row for each new node. A node without a free row waits, and recomputes its tokens
  when it gets one. A group takes nodes of its document as its rows become free, and another
  document when there are no more. At the end the groups with work move to a smaller batch.
  """

  def __init__(self, model: LanguageModel, prefilled: PrefilledDocuments,
               branches: Sequence[Branch], config: BranchConfig, sampling_rows: int):
    self.model, self.prefilled, self.branches, self.config = model, prefilled, branches, config
    self.waiting: dict[int, deque[_Node]] = {}
    nodes = _first_nodes(branches, config.opening)
    for node in nodes:
      self.waiting.setdefault(node.document, deque()).append(node)
    self.max_branches = count_bucket(max((len(node.branches) for node in nodes), default=1))
    load = sum(node.load for node in nodes)
    most = 1 << sampling_rows.bit_length() - 1
    rows = min(most, max(_MIN_ROWS, count_bucket(load) // 2))
    mean = load // max(1, len(self.waiting))
    self.group_rows = min(_GROUP_ROWS, rows, 1 << max(mean, 1).bit_length() - 1)
    self.groups = [_Group([_Row() for _ in range(self.group_rows)])
                   for _ in range(rows // self.group_rows)]
    self.results: list[str | None] = [None] * len(branches)

  def run(self, counts: Counter[str] | None) -> list[str | None]:
    """Decodes until no branch is left."""
    slots = -(-(len(self.config.opening) + self.config.max_tokens) // 16) * 16
    with jax.set_mesh(self.model.mesh):
      cache = new_cache(self.model.config, len(self.groups) * self.group_rows, slots)
      loaded: list[int] = []
      documents: KVCache | None = None
      while self._fill():
        cache = self._shrink(cache)
        wanted = [group.document for group in self.groups]
        if documents is None or loaded != wanted:
          # Freed before others are copied: they take as much memory as the cache.
          loaded, documents = wanted, None
          documents = take_rows(self.prefilled.documents, np.array(loaded, np.int32))
        count_tokens(counts, sum(row.node is not None for row in self._rows), len(self._rows))
        sampled_BW, cache = self._decode(documents, cache)
        cache = self._split(np.asarray(sampled_BW), cache)
    return self.results

  @property
  def _rows(self) -> list[_Row]:
    """All rows, in the order of the batch."""
    return [row for group in self.groups for row in group.rows]

  def _fill(self) -> bool:
    """Assigns nodes to free rows; returns whether any row has work."""
    for group in self.groups:
      if not group.load and self.waiting:
        group.document = max(self.waiting, key=lambda d: (len(self.waiting[d]), -d))
      for row in group.rows:
        queue = self.waiting.get(group.document)
        if row.node or not queue:
          continue
        if group.load and group.load + queue[0].load > self.group_rows:
          break
        row.node, row.num_computed_tokens = queue.popleft(), 0
        if not queue:
          del self.waiting[group.document]
    return any(group.load for group in self.groups)

  def _shrink(self, cache: KVCache) -> KVCache:
    """Reduces the groups to a power of two that is enough for those with work."""
    busy = [bool(group.load) for group in self.groups]
    load = sum(group.load for group in self.groups)
    needed = max(sum(busy), -(-load // self.group_rows), -(-_MIN_ROWS // self.group_rows))
    size = count_bucket(needed)
    if size >= len(self.groups):
      return cache
    kept = busy_first(busy, size)
    self.groups = [self.groups[i] for i in kept]
    rows_B = [i * self.group_rows + row for i in kept for row in range(self.group_rows)]
    return take_rows(cache, np.array(rows_B, np.int32))

  def _decode(self, documents: KVCache, cache: KVCache) -> tuple[jax.Array, KVCache]:
    """Reads the next token of every row, and samples the one after it for each of its branches."""
    lengths_B = self.model.put_batch(row_values(self._rows, lambda row: row.num_computed_tokens))
    return sample_step(
        self.model.decoder, self.model.variables, self.prefilled.prompt, documents,
        cache.with_length(lengths_B), self._branch_rows(), self.config.first_allowed_V)

  def _branch_rows(self) -> BranchRows:
    """Returns the inputs of the next step."""
    nodes = [row.node for row in self._rows]
    opening, config = len(self.config.opening), self.config
    def of(value: Callable[[_Node], Any], dtype: Any = np.int32) -> jax.Array:
      return self.model.put_batch(row_values(nodes, value, dtype))
    def seeds(node: _Node | None) -> list[int]:
      used = [self.branches[i].seed for i in node.branches] if node else []
      return used + [0] * (self.max_branches - len(used))
    last_tokens = [row.node.tokens[row.num_computed_tokens] if row.node else 0
                   for row in self._rows]
    return BranchRows(
        visible_B=of(lambda node: node.visible),
        last_token_B=self.model.put_batch(np.array(last_tokens, np.int32)),
        is_first_B=of(lambda node: len(node.tokens) == opening, bool),
        num_tokens_B=of(lambda node: len(node.tokens)),
        seeds_BW=self.model.put_batch(np.array(list(map(seeds, nodes)), np.uint32)),
        temperature_B=np.full(len(nodes), config.temperature, np.float32),
        top_p_B=np.full(len(nodes), config.top_p, np.float32))

  def _split(self, sampled_BW: np.ndarray, cache: KVCache) -> KVCache:
    """Appends the sampled tokens: ends branches, and gives those that differ rows of their own."""
    new = []
    for i, row in enumerate(self._rows):
      if row.node is None:
        continue
      row.num_computed_tokens += 1
      if row.num_computed_tokens == len(row.node.tokens):  # else the next token is known
        following = self._successors(row.node, sampled_BW[i].tolist())
        row.node = following[0] if following else None
        new += [(i, row.num_computed_tokens, node) for node in following[1:]]
    return self._copy(new, cache)

  def _successors(self, node: _Node, sampled: list[int]) -> list[_Node]:
    """Returns the next nodes, one for each distinct token, without finished branches."""
    by_token: dict[int, list[int]] = {}
    for branch, token in zip(node.branches, sampled, strict=False):
      by_token.setdefault(token, []).append(branch)
    opening, unfinished = len(self.config.opening), []
    for token, branches in by_token.items():
      tokens = [*node.tokens, token]
      text = self.model.tokenizer.decode(tokens[opening:])
      if self.config.is_finished(text):
        for branch in branches:
          self.results[branch] = text
      elif len(tokens) < opening + self.config.max_tokens:
        unfinished.append(_Node(node.document, node.visible, branches, tokens))
    return unfinished

  def _copy(self, new: list[tuple[int, int, _Node]], cache: KVCache) -> KVCache:
    """Copies rows for new nodes (row to copy, number of cached tokens, node), or queues them."""
    copies = []
    for source, num_computed_tokens, node in new:
      target = self._free_row(node.document)
      if target is None:
        self.waiting.setdefault(node.document, deque()).appendleft(node)
      else:
        row = self._rows[target]
        row.node, row.num_computed_tokens = node, num_computed_tokens
        copies.append((source, target))
    if not copies:
      return cache
    size, rows = count_bucket(len(copies), _MIN_ROWS), len(self._rows)
    copies += [(0, rows)] * (size - len(copies))  # out of range: not written
    from_R, to_R = np.array(copies, np.int32).T
    return _copy_rows(cache, from_R, to_R)

  def _free_row(self, document: int) -> int | None:
    """Returns a free row of a group that has `document` or is idle; None if there is none."""
    for idle in (False, True):
      for i, group in enumerate(self.groups):
        if (not group.load) if idle else (group.load and group.document == document):
          for j, row in enumerate(group.rows):
            if row.node is None:
              group.document = document
              return i * self.group_rows + j
    return None


def _first_nodes(branches: Sequence[Branch], opening: tuple[int, ...]) -> list[_Node]:
  """Returns the initial nodes, one for each position."""
  nodes: dict[tuple[int, int], _Node] = {}
  for i, branch in enumerate(branches):
    position = (branch.document, branch.visible)
    nodes.setdefault(position, _Node(*position, [], list(opening))).branches.append(i)
  return list(nodes.values())


@functools.partial(jax.jit, donate_argnames='cache')
def _copy_rows(cache: KVCache, from_R: jax.Array, to_R: jax.Array) -> KVCache:
  """Returns `cache`, which is donated, with rows copied; those to rows out of range are dropped."""
  return cache.put(to_R, cache.take(from_R))


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def sample_step(
    decoder: Decoder, variables: dict[str, Any], prompt: KVCache, documents: KVCache,
    cache: KVCache, rows: BranchRows, first_allowed_V: jax.Array,
) -> tuple[jax.Array, KVCache]:
  """Returns the next token of each branch, [B, W] int32, and the cache with the token before it.

  Args:
    decoder, variables: the model.
    prompt: one row that all rows attend to.
    documents: a row for each group of adjacent rows, which attend to it up to `rows.visible_B`.
    cache: of the rows' own tokens; donated.
    rows: inputs of the step.
    first_allowed_V: bool, the ids that may follow the opening.
  """
  B = rows.visible_B.shape[0]
  prefixes = [Prefix.of(prompt, jnp.broadcast_to(prompt.length_B, (B,))),
              Prefix.of(documents, rows.visible_B)]
  logits_B1V, cache = apply_with_cache(
      decoder, variables, rows.last_token_B[:, None], cache=cache, prefixes=prefixes)
  logits_BV = logits_B1V[:, 0].astype(jnp.float32)
  logits_BV = jnp.where(rows.is_first_B[:, None] & ~first_allowed_V, -jnp.inf, logits_BV)
  tokens_BW = sample(logits_BV, rows.seeds_BW, rows.num_tokens_B, rows.temperature_B, rows.top_p_B)
  return tokens_BW, cache
