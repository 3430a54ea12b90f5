"""Feeds tokens to some rows of a cache: texts that begin are packed, what goes on comes in chunks.

A prompt reads nothing but itself: several are computed in one row, and their keys and values go to
where each belongs. A tool's result reads the text before it, in its own row.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.inference.batching import count_bucket, first_fit, length_bucket
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.kv_cache import AnyCache, Cache, UnrolledCache
from toolformer_jax.models.language_model import LanguageModel

_CHUNK = 32  # tokens that are fed to a row in one call
_PACKED = 256  # tokens of a row of beginnings, at most
_PACKED_ROWS = 4  # of them that a device is fed in one call, at most
_ROWS = 8  # that are fed a chunk in one call, at most


class Missing(NamedTuple):
  """What a row's cache lacks: `tokens`, after its first `length` slots."""

  row: int
  length: int
  tokens: list[int]


def feed(model: LanguageModel, cache: AnyCache, missing: Sequence[Missing]) -> AnyCache:
  """Returns `cache` with what was missing; the caller sets the lengths of rows.

  The old cache is gone.
  """
  longest = max((length + len(tokens) for _, length, tokens in missing), default=0)
  cache = with_room(cache, -(-longest // _CHUNK) * _CHUNK)
  begun = [item for item in missing if not item.length and item.tokens]
  if begun:
    size = min(_PACKED, cache.slots, count_bucket(sum(len(text.tokens) for text in begun), _CHUNK))
    cache = _begin(model, cache, begun, size)
    missing = [Missing(row, length, tokens) if length else Missing(row, size, tokens[size:])
               for row, length, tokens in missing]
  while missing := [item for item in missing if item.tokens]:
    for first in range(0, len(missing), _ROWS):
      cache = _go_on(model, cache, missing[first:first + _ROWS])
    missing = [Missing(row, length + _CHUNK, tokens[_CHUNK:]) for row, length, tokens in missing]
  return cache


def with_room(cache: AnyCache, tokens: int) -> AnyCache:
  """Returns `cache` with room for `tokens` tokens a row, in as few different sizes as may be.

  Where that is another one, the old one is gone.
  """
  if tokens <= cache.slots:
    return cache
  if isinstance(cache, Cache):
    return _grow(cache, count_bucket(tokens))
  layers = []
  for layer in cache.layers:  # one by one: never are the old and the new of all there at once
    layers += _grow(UnrolledCache((layer,), cache.length_B), count_bucket(tokens)).layers
    jax.block_until_ready(layers[-1])
    for slots in layer:
      slots.delete()
  return UnrolledCache(tuple(layers), cache.length_B)


@functools.partial(jax.jit, static_argnames='slots')
def _grow(cache: AnyCache, slots: int) -> AnyCache:
  return cache.grow(slots)


def _begin(model: LanguageModel, cache: AnyCache, texts: list[Missing], size: int) -> AnyCache:
  """Feeds the first `size` tokens of each text, packed into rows of so many."""
  begins, ways = [text.tokens[:size] for text in texts], sharding.batch_ways(model.mesh)
  for rows in _batches(first_fit(list(map(len, begins)), size), ways):
    arrays, found = _packed(begins, rows, -(-len(rows) // ways) * ways, size)
    places_R3 = np.zeros((cache.length_B.size, 3), np.int32)
    places_R3[:len(found)] = [(texts[i].row, p, begin) for i, p, begin in found]
    cache = _begin_rows(model.decoder, model.variables, cache, *map(model.put_batch, arrays),
                        places_R3, len(found))
  return cache


def _batches(rows: list[list[int]], ways: int) -> Iterator[list[list[int]]]:
  """Yields all rows, a power of two of them for each of `ways` devices at a time.

  On one device the last is by itself: it is seldom full, and may be shorter then.
  """
  while rows:
    each = max(1, (len(rows) - 1) // ways)
    count = ways * min(_PACKED_ROWS, 1 << each.bit_length() - 1)
    yield rows[:count]
    rows = rows[count:]


def _packed(begins: list[list[int]], rows: list[list[int]], P: int, size: int
            ) -> tuple[list[np.ndarray], list[tuple[int, int, int]]]:
  """Returns tokens, positions and segments [P, T] of rows, and (text, row, begin in it) of each."""
  longest = max(sum(len(begins[i]) for i in members) for members in rows)
  T = min(size, length_bucket(longest))
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
def _begin_rows(
    decoder: Decoder, variables, cache: AnyCache, tokens_PT, positions_PT, segments_PT, places_R3,
    count,
) -> AnyCache:
  """Feeds packed texts; the first `count` of `places_R3` are (row, packed row, begin in it)."""
  _, packed = decoder.apply(
      variables, tokens_PT, positions_BT=positions_PT, segments_BT=segments_PT,
      cache=Cache.empty(decoder.config, *tokens_PT.shape), head=False)
  def put(i, cache):
    row, packed_row, begin = places_R3[i]
    return cache.write(row, packed.row(packed_row, begin))
  return jax.lax.fori_loop(0, count, put, cache)


def _go_on(model: LanguageModel, cache: AnyCache, texts: list[Missing]) -> AnyCache:
  """Feeds the next chunk of each; few rows, as they are copied out of the cache and back."""
  R = count_bucket(len(texts))
  rows_R, lengths_R = np.full(R, cache.length_B.size, np.int32), np.zeros(R, np.int32)
  tokens_RT = np.zeros((R, _CHUNK), np.int32)
  for r, (row, length, tokens) in enumerate(texts):
    rows_R[r], lengths_R[r] = row, length
    tokens_RT[r, :len(tokens[:_CHUNK])] = tokens[:_CHUNK]
  return _extend_rows(model.decoder, model.variables, cache, rows_R, lengths_R, tokens_RT)


@functools.partial(jax.jit, static_argnames='decoder', donate_argnames='cache')
def _extend_rows(
    decoder: Decoder, variables, cache: AnyCache, rows_R, lengths_R, tokens_RT
) -> AnyCache:
  """Feeds tokens to some rows of the cache; rows past its end are ignored."""
  some = cache.take(rows_R).with_length(lengths_R)
  unrolled = isinstance(some, UnrolledCache)
  _, some = decoder.apply(
      variables, tokens_RT, cache=some.stacked() if unrolled else some, head=False)
  return cache.put(rows_R, UnrolledCache.of(some) if unrolled else some)
