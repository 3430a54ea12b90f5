"""Prefill: writes the keys and values of known tokens into rows of a KV cache.

Prompts are packed: as a prompt attends to nothing but itself, several are computed in one row, and
their keys and values are copied to the row of each. A tool's result attends to the text before it,
so it is computed in its own row, a chunk at a time.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.inference.batching import count_bucket, first_fit, length_bucket
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.kv_cache import KVCache
from toolformer_jax.models.language_model import LanguageModel

_CHUNK = 32  # tokens of a row in one call
PACKED = 256  # most tokens of a row of packed prompts
_PACKED_ROWS = 4  # most such rows of a device in one call
_ROWS = 8  # most rows that get a chunk in one call
FEW_LENGTHS = 64  # with few shapes, the shortest row of packed prompts; the others are twice that


class Chunk(NamedTuple):
  """Tokens to write into a row of the cache, after its first `length` slots."""

  row: int
  length: int
  tokens: list[int]


def prefill(model: LanguageModel, cache: KVCache, chunks: Sequence[Chunk], *,
            few_shapes: bool = False) -> KVCache:
  """Returns `cache` with the tokens of `chunks`; the caller sets the lengths of the rows.

  The given cache is donated. With `few_shapes` few sizes of batches are used, at the cost of
  padding, so that all of their programs can be compiled ahead.
  """
  longest = max((length + len(tokens) for _, length, tokens in chunks), default=0)
  cache = with_room(cache, -(-longest // _CHUNK) * _CHUNK)
  new = [item for item in chunks if not item.length and item.tokens]
  if new:
    smallest = FEW_LENGTHS if few_shapes else _CHUNK
    size = min(PACKED, cache.slots, count_bucket(sum(len(text.tokens) for text in new), smallest))
    cache = _prefill_packed(model, cache, new, size, few_shapes)
    chunks = [Chunk(row, length, tokens) if length else Chunk(row, size, tokens[size:])
               for row, length, tokens in chunks]
  while chunks := [item for item in chunks if item.tokens]:
    for first in range(0, len(chunks), _ROWS):
      some = chunks[first:first + _ROWS]
      cache = _extend(model, cache, some, _ROWS if few_shapes and some[1:] else len(some))
    chunks = [Chunk(row, length + _CHUNK, tokens[_CHUNK:]) for row, length, tokens in chunks]
  return cache


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


def _prefill_packed(model: LanguageModel, cache: KVCache, texts: list[Chunk], size: int,
                    few_shapes: bool) -> KVCache:
  """Writes the first `size` tokens of each text, packed into rows of `size` tokens."""
  begins, ways = [text.tokens[:size] for text in texts], sharding.batch_shards(model.mesh)
  most_rows = 1 if few_shapes else _PACKED_ROWS
  for rows in _batches(first_fit(list(map(len, begins)), size), ways, most_rows):
    longest = max(sum(len(begins[i]) for i in members) for members in rows)
    T = count_bucket(longest, FEW_LENGTHS) if few_shapes else length_bucket(longest)
    arrays, found = _packed(begins, rows, -(-len(rows) // ways) * ways, min(size, T))
    places_R3 = np.zeros((cache.length_B.size, 3), np.int32)
    places_R3[:len(found)] = [(texts[i].row, p, begin) for i, p, begin in found]
    cache = _write_packed(model.decoder, model.variables, cache, *map(model.put_batch, arrays),
                        places_R3, len(found))
  return cache


def _batches(rows: list[list[int]], ways: int, most_rows: int) -> Iterator[list[list[int]]]:
  """Yields the rows in batches: a power of two, at most `most_rows`, for each of `ways` devices.

  On one device the last row has a batch of its own: it is seldom full, and can be shorter then.
  """
  while rows:
    each = max(1, (len(rows) - 1) // ways)
    count = ways * min(most_rows, 1 << each.bit_length() - 1)
    yield rows[:count]
    rows = rows[count:]


def _packed(begins: list[list[int]], rows: list[list[int]], P: int, T: int
            ) -> tuple[list[np.ndarray], list[tuple[int, int, int]]]:
  """Returns tokens, positions and segments [P, T] of rows, and (text, row, begin in it) of each."""
  tokens_PT, positions_PT, segments_PT = np.zeros((3, P, T), np.int32)
  found = []
  for p, members in enumerate(rows):
    begin = 0
    for segment, i in enumerate(members, 1):
      here = np.s_[p, begin:begin + len(begins[i])]
      tokens_PT[here], positions_PT[here] = begins[i], np.arange(len(begins[i]))
      segments_PT[here] = segment
      found.append((i, p, begin))
      begin += len(begins[i])
  return [tokens_PT, positions_PT, segments_PT], found


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def _write_packed(
    decoder: Decoder, variables: dict[str, Any], cache: KVCache, tokens_PT: jax.Array,
    positions_PT: jax.Array, segments_PT: jax.Array, places_R3: jax.Array, count: jax.Array,
) -> KVCache:
  """Writes packed texts; the first `count` of `places_R3` are (row, packed row, begin in it)."""
  _, packed = decoder.apply(
      variables, tokens_PT, positions_BT=positions_PT, segments_BT=segments_PT,
      cache=KVCache.empty(decoder.config, *tokens_PT.shape), return_hidden=True)
  def put(i, cache):
    row, packed_row, begin = places_R3[i]
    return cache.write(row, packed.row(packed_row, begin))
  return jax.lax.fori_loop(0, count, put, cache)


def _extend(model: LanguageModel, cache: KVCache, texts: list[Chunk], rows: int) -> KVCache:
  """Writes the next chunk of each; few rows, as they are copied out of the cache and back."""
  R = count_bucket(rows)
  rows_R, lengths_R = np.full(R, cache.length_B.size, np.int32), np.zeros(R, np.int32)
  tokens_RT = np.zeros((R, _CHUNK), np.int32)
  for r, (row, length, tokens) in enumerate(texts):
    rows_R[r], lengths_R[r] = row, length
    tokens_RT[r, :len(tokens[:_CHUNK])] = tokens[:_CHUNK]
  return _extend_rows(model.decoder, model.variables, cache, rows_R, lengths_R, tokens_RT)


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def _extend_rows(
    decoder: Decoder, variables: dict[str, Any], cache: KVCache, rows_R: jax.Array,
    lengths_R: jax.Array, tokens_RT: jax.Array,
) -> KVCache:
  """Writes tokens into some rows of the cache; rows past its end are ignored."""
  some = cache.take(rows_R).with_length(lengths_R)
  _, some = decoder.apply(variables, tokens_RT, cache=some.to_layout('stacked'), return_hidden=True)
  return cache.put(rows_R, some.to_layout(cache.layout))
