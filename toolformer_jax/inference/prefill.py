"""Prefill: writes the keys and values of known tokens into rows of a KV cache.

Prompts are packed: as a prompt attends to nothing but itself, several are computed in one row, and
their keys and values are copied to the row of each. A tool's result attends to the text before it,
so it is computed in its own row, a chunk at a time.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.inference.batching import (
  PackedTokens,
  count_bucket,
  first_fit,
  length_bucket,
  pack_sequences,
)
from toolformer_jax.models.decoder import Decoder, apply_with_cache
from toolformer_jax.models.kv_cache import KVCache
from toolformer_jax.models.language_model import LanguageModel

_CHUNK_TOKENS = 32  # of a row in one call
_MAX_CHUNK_ROWS = 8  # that get a chunk in one call
MAX_PACKED_TOKENS = 256  # of a row of packed prompts
_MAX_PACKED_ROWS = 4  # of a device in one call
MIN_FEW_TOKENS = 64  # with few shapes, of a row of packed prompts; longer rows are powers of two


class Chunk(NamedTuple):
  """Tokens to write into a row of the cache, after its first `length` slots.

  `adapter_id` is the number of the adapter that reads them.
  """

  row: int
  length: int
  tokens: list[int]
  adapter_id: int = 0


def prefill(model: LanguageModel, cache: KVCache, chunks: Sequence[Chunk], *,
            few_shapes: bool = False) -> KVCache:
  """Returns `cache` with the tokens of `chunks`; the caller sets the lengths of the rows.

  The given cache is donated. With `few_shapes` few sizes of batches are used, at the cost of
  padding, so that all of their programs can be compiled ahead.
  """
  longest = max((length + len(tokens) for _, length, tokens, _ in chunks), default=0)
  cache = with_room(cache, -(-longest // _CHUNK_TOKENS) * _CHUNK_TOKENS)
  prompts = [chunk for chunk in chunks if not chunk.length and chunk.tokens]
  if prompts:
    smallest = MIN_FEW_TOKENS if few_shapes else _CHUNK_TOKENS
    num_tokens = sum(len(prompt.tokens) for prompt in prompts)
    size = min(MAX_PACKED_TOKENS, cache.slots, count_bucket(num_tokens, smallest))
    cache = _prefill_packed(model, cache, prompts, size, few_shapes)
    chunks = [chunk if chunk.length else _after(chunk, size) for chunk in chunks]
  while chunks := [chunk for chunk in chunks if chunk.tokens]:
    for first in range(0, len(chunks), _MAX_CHUNK_ROWS):
      batch = chunks[first:first + _MAX_CHUNK_ROWS]
      num_rows = _MAX_CHUNK_ROWS if few_shapes and len(batch) > 1 else len(batch)
      cache = _append_chunks(model, cache, batch, num_rows)
    chunks = [_after(chunk, _CHUNK_TOKENS) for chunk in chunks]
  return cache


def _after(chunk: Chunk, tokens: int) -> Chunk:
  """Returns what is left of `chunk` after its first `tokens` tokens."""
  return chunk._replace(length=chunk.length + tokens, tokens=chunk.tokens[tokens:])


def with_room(cache: KVCache, tokens: int) -> KVCache:
  """Returns `cache` with room for `tokens` tokens per row; sizes are powers of two.

  A cache that has to grow is donated.
  """
  if tokens <= cache.slots:
    return cache
  slots = count_bucket(tokens)
  if cache.layout == 'stacked':
    return _grow(cache, slots)
  keys, values = [], []
  for k_BKHS, v_BKSH in zip(cache.keys, cache.values, strict=True):
    # One by one: the old and the new cache never exist both as a whole.
    grown = jax.block_until_ready(_grow(KVCache((k_BKHS,), (v_BKSH,), cache.length_B), slots))
    keys += grown.keys
    values += grown.values
    k_BKHS.delete()
    v_BKSH.delete()
  return KVCache(tuple(keys), tuple(values), cache.length_B)


@functools.partial(jax.jit, static_argnames='slots')
def _grow(cache: KVCache, slots: int) -> KVCache:
  return cache.grow(slots)


def _prefill_packed(model: LanguageModel, cache: KVCache, prompts: list[Chunk], size: int,
                    few_shapes: bool) -> KVCache:
  """Writes the first `size` tokens of each prompt, packed into rows of at most `size` tokens."""
  shards = sharding.batch_shards(model.mesh)
  sequences = [prompt.tokens[:size] for prompt in prompts]
  max_rows = 1 if few_shapes else _MAX_PACKED_ROWS
  for rows in _batches(first_fit(list(map(len, sequences)), size), shards, max_rows):
    longest = max(sum(len(sequences[i]) for i in members) for members in rows)
    row_tokens = count_bucket(longest, MIN_FEW_TOKENS) if few_shapes else length_bucket(longest)
    packed, placements = pack_sequences(sequences, rows, -(-len(rows) // shards) * shards,
                                        min(size, row_tokens))
    places_R3 = np.zeros((cache.length_B.size, 3), np.int32)
    places_R3[:len(placements)] = [(prompts[place.sequence].row, place.row, place.start)
                                   for place in placements]
    adapter_ids_BT = np.zeros_like(packed.tokens_BT)
    for place in placements:
      end = place.start + len(sequences[place.sequence])
      adapter_ids_BT[place.row, place.start:end] = prompts[place.sequence].adapter_id
    packed, adapter_ids_BT = model.put_batch((packed, adapter_ids_BT))
    cache = _write_packed(model.decoder, model.variables, cache, packed, adapter_ids_BT, places_R3,
                          len(placements))
  return cache


def _batches(rows: list[list[int]], shards: int, max_rows: int) -> Iterator[list[list[int]]]:
  """Yields the rows in batches: a power of two, at most `max_rows`, for each of `shards` devices.

  On one device the last row has a batch of its own: it is seldom full, and can be shorter then.
  """
  while rows:
    rows_per_shard = max(1, (len(rows) - 1) // shards)
    count = shards * min(max_rows, 1 << rows_per_shard.bit_length() - 1)
    yield rows[:count]
    rows = rows[count:]


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def _write_packed(
    decoder: Decoder, variables: dict[str, Any], cache: KVCache, packed: PackedTokens,
    adapter_ids_BT: jax.Array, places_R3: jax.Array, count: jax.Array,
) -> KVCache:
  """Returns `cache`, which is donated, with the keys and values of packed prompts.

  Args:
    decoder, variables: the model.
    cache: rows to write to.
    packed: prompts in packed rows, which begin at position 0.
    adapter_ids_BT: number of each token's adapter; int32.
    places_R3: row of the cache, row of `packed` and start in it, of each prompt; int32.
    count: number of prompts; the rest of `places_R3` is padding.
  """
  rows, slots = packed.tokens_BT.shape
  _, packed_cache = apply_with_cache(
      decoder, variables, packed.tokens_BT, positions_BT=packed.positions_BT,
      segment_ids_BT=packed.segment_ids_BT, adapter_ids_BT=adapter_ids_BT,
      cache=KVCache.empty(decoder.config, rows, slots), return_hidden=True)
  def write(i: jax.Array, cache: KVCache) -> KVCache:
    row, packed_row, start = places_R3[i]
    return cache.write(row, packed_cache.row(packed_row, start))
  return jax.lax.fori_loop(0, count, write, cache)


def _append_chunks(model: LanguageModel, cache: KVCache, chunks: list[Chunk], num_rows: int
                   ) -> KVCache:
  """Writes the first tokens of each chunk. The rows are copied out of the cache and back."""
  R = count_bucket(num_rows)
  rows_R = np.full(R, cache.length_B.size, np.int32)
  lengths_R, adapter_ids_R = np.zeros((2, R), np.int32)
  tokens_RT = np.zeros((R, _CHUNK_TOKENS), np.int32)
  for r, (row, length, tokens, adapter_id) in enumerate(chunks):
    rows_R[r], lengths_R[r], adapter_ids_R[r] = row, length, adapter_id
    tokens_RT[r, :len(tokens[:_CHUNK_TOKENS])] = tokens[:_CHUNK_TOKENS]
  return _append_to_rows(model.decoder, model.variables, cache, rows_R, lengths_R, tokens_RT,
                         adapter_ids_R)


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def _append_to_rows(
    decoder: Decoder, variables: dict[str, Any], cache: KVCache, rows_R: jax.Array,
    lengths_R: jax.Array, tokens_RT: jax.Array, adapter_ids_R: jax.Array,
) -> KVCache:
  """Returns `cache`, which is donated, with the keys and values of new tokens in some rows.

  Args:
    decoder, variables: the model.
    cache: rows to append to.
    rows_R: rows of the cache; those out of range are padding; int32.
    lengths_R: slots in use of each; int32.
    tokens_RT: ids to append to each; int32.
    adapter_ids_R: number of the adapter of each; int32.
  """
  rows = cache.take(rows_R).with_length(lengths_R)
  _, rows = apply_with_cache(
      decoder, variables, tokens_RT, cache=rows.to_layout('stacked'),
      adapter_ids_BT=jnp.broadcast_to(adapter_ids_R[:, None], tokens_RT.shape), return_hidden=True)
  return cache.put(rows_R, rows.to_layout(cache.layout))
