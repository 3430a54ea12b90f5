"""Compiles the programs of an engine before its first request, so that no request waits for them.

Only an engine with `few_shapes` has so few sizes that all of them can be compiled.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from toolformer_jax.inference import prefill
from toolformer_jax.inference.decoding import STEPS, DecodeRows, SpecialTokens, decode_steps
from toolformer_jax.inference.prefix_cache import read_block, write_block
from toolformer_jax.models.kv_cache import KVCache, Layout, new_cache, take_rows
from toolformer_jax.models.language_model import LanguageModel

log = logging.getLogger(__name__)


def warm_up(model: LanguageModel, decoding_model: LanguageModel, special: SpecialTokens,
            row_sizes: Sequence[int], first_slots: int, max_tokens: int, *,
            with_prefix_cache: bool) -> None:
  """Runs every program of every size once.

  Args:
    model: reads prompts and results.
    decoding_model: the same, as decoding steps use it.
    special: as decoding steps get them.
    row_sizes: of the batch.
    first_slots: of a new cache.
    max_tokens: tokens of the longest text, prompt included.
    with_prefix_cache: whether blocks of prompts are copied out of the cache and back.
  """
  slot_sizes = [first_slots]
  while slot_sizes[-1] < max_tokens:
    slot_sizes.append(2 * slot_sizes[-1])
  sizes = list(itertools.product(row_sizes, slot_sizes))
  for number, (rows, slots) in enumerate(sizes, 1):
    log.info('warm-up %d of %d: programs for %d rows of %d tokens', number, len(sizes), rows, slots)
    with jax.set_mesh(model.mesh):
      for cache in _caches(decoding_model, row_sizes, slot_sizes, rows, slots):
        for chunks in _chunks(rows, slots):
          cache = prefill.prefill(model, cache, chunks, few_shapes=True)
        if with_prefix_cache:
          cache = write_block(cache, 0, 0, read_block(cache, 0, 0))
        cache = _decode(decoding_model, cache, special)
      jax.block_until_ready(cache)


def _caches(model: LanguageModel, row_sizes: Sequence[int], slot_sizes: Sequence[int], rows: int,
            slots: int) -> Iterator[KVCache]:
  """Yields a cache of `rows` and `slots` in every way that the engine can come to it."""
  layout: Layout = 'stacked' if model.decoder.scan_layers else 'per_layer'
  def new(rows: int, slots: int) -> KVCache:
    return prefill.with_room(new_cache(model.config, rows, slot_sizes[0], layout), slots)
  yield new(rows, slots)
  for fewer in slot_sizes:
    if fewer < slots:
      yield prefill.with_room(new(rows, fewer), slots)
  for others in row_sizes:
    if others != rows:
      yield take_rows(new(others, slots), np.zeros(rows, np.int32))


def _chunks(rows: int, slots: int) -> Iterator[list[prefill.Chunk]]:
  """Yields what prefill gets: packed prompts of every length, and chunks of one row and of more."""
  length = prefill.MIN_FEW_TOKENS
  while length <= min(slots, prefill.MAX_PACKED_TOKENS):
    yield [prefill.Chunk(0, 0, [0] * length)]
    length *= 2
  for some in (1, 2):
    if some <= rows:
      yield [prefill.Chunk(row, 1, [0]) for row in range(some)]


def _decode(model: LanguageModel, cache: KVCache, special: SpecialTokens) -> KVCache:
  """Runs the decoding program once, on rows without work."""
  B = cache.length_B.size
  def zeros(dtype: Any, *shape: int) -> jax.Array:
    return model.put_batch(np.zeros((B, *shape), dtype))
  rows = DecodeRows(
      pending_BA=zeros(np.int32, STEPS + 1), num_pending_B=zeros(np.int32),
      may_call_B=zeros(bool), forbid_call_B=zeros(bool), top_k_api_B=zeros(np.int32),
      min_tokens_left_B=zeros(np.int32), num_tokens_B=zeros(np.int32), seed_B=zeros(np.uint32),
      temperature_B=zeros(np.float32), top_p_B=zeros(np.float32), adapter_ids_B=zeros(np.int32),
      wants_logprobs_B=zeros(bool))
  cache = cache.with_length(zeros(np.int32))
  return decode_steps(model.decoder, model.variables, cache, rows, special)[-1]
