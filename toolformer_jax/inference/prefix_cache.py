"""Keys and values of the beginnings that prompts share, kept from one request to the next.

A prompt is cut into blocks of `BLOCK_TOKENS` tokens. A block is named by a hash of its tokens, of
all tokens before them and of the adapter, because its keys and values depend on these alone. If the
first blocks of a prompt are in the cache, they are copied into the row of the prompt, and only the
rest is computed. The least recently used blocks are evicted.
"""

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from toolformer_jax.inference import prefill
from toolformer_jax.models.kv_cache import KVCache

BLOCK_TOKENS = 64


class PrefixCache:
  """Blocks of keys and values by the hash of all tokens up to their end."""

  def __init__(self, max_bytes: int):
    """Creates an empty cache that holds at most `max_bytes`."""
    self._blocks: OrderedDict[bytes, KVCache] = OrderedDict()  # the last used come last
    self._max_bytes, self._num_bytes = max_bytes, 0

  def restore(self, cache: KVCache, row: int, prompt: Sequence[int], adapter_id: int = 0
              ) -> tuple[KVCache, int]:
    """Copies the blocks that `prompt` begins with into a row of `cache`, which is donated.

    The last token of a prompt is never among them: its logits have to be computed.

    Args:
      cache: of the engine.
      row: of the prompt.
      prompt: token ids.
      adapter_id: number of the adapter that reads the prompt.

    Returns:
      the cache, and the number of tokens whose keys and values the row has now.
    """
    found = []
    for name in _block_names(prompt, adapter_id):
      if name not in self._blocks:
        break
      found.append(name)
    for name in reversed(found):  # a block is of no use without those before it: they go last
      self._blocks.move_to_end(name)
    num_tokens = len(found) * BLOCK_TOKENS
    cache = prefill.with_room(cache, num_tokens)
    for i, name in enumerate(found):
      cache = write_block(cache, row, i * BLOCK_TOKENS, self._blocks[name])
    return cache, num_tokens

  def store(self, cache: KVCache, row: int, prompt: Sequence[int], adapter_id: int = 0) -> None:
    """Keeps the blocks of `prompt`, whose keys and values are in a row of `cache`; see `restore`.
    """
    for i, name in enumerate(_block_names(prompt, adapter_id)):
      if name not in self._blocks:
        self._add(name, read_block(cache, row, i * BLOCK_TOKENS))

  def _add(self, name: bytes, block: KVCache) -> None:
    size = _num_bytes(block)
    if size > self._max_bytes:
      return
    self._blocks[name] = block
    self._num_bytes += size
    while self._num_bytes > self._max_bytes:
      _, oldest = self._blocks.popitem(last=False)
      self._num_bytes -= _num_bytes(oldest)


def _block_names(prompt: Sequence[int], adapter_id: int) -> Iterator[bytes]:
  """Yields the names of the whole blocks before the last token of a prompt."""
  name = adapter_id.to_bytes(4, 'little')
  for end in range(BLOCK_TOKENS, len(prompt), BLOCK_TOKENS):
    tokens = np.asarray(prompt[end - BLOCK_TOKENS:end], np.int32)
    name = hashlib.sha256(name + tokens.tobytes()).digest()
    yield name


def _num_bytes(block: KVCache) -> int:
  return sum(array.nbytes for array in jax.tree.leaves(block))


@jax.jit
def read_block(cache: KVCache, row: jax.Array | int, begin: jax.Array | int) -> KVCache:
  """Returns a copy of `BLOCK_TOKENS` slots of a row, from slot `begin` on."""
  return cache.block(row, begin, BLOCK_TOKENS)


@functools.partial(jax.jit, donate_argnames='cache')
def write_block(cache: KVCache, row: jax.Array | int, begin: jax.Array | int, block: KVCache
                ) -> KVCache:
  """Returns `cache`, which is donated, with a block in a row, from slot `begin` on."""
  return cache.write(row, block, begin)
