"""What 'bfloat16' computes in bfloat16, by the kind of device.

TPUs and GPUs compute everything faster in bfloat16. CPUs compute only matrix products faster, and
only if they have instructions for them (AMX, AVX512-BF16) which XLA uses. XLA computes all else in
float32, and converts before and after each operation.
"""

import functools
import logging
import time
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from toolformer_jax.models.config import Bfloat16Parts

log = logging.getLogger(__name__)

# Of a product in bfloat16 over one in float32. With AMX it was 2.2 to 4.5, with AVX512-BF16 1.8 to
# 1.9 (1.4 on a busy machine), without them not above 1.
_LEAST_SPEEDUP = 1.25
_SIZE = 512  # of the measured matrices
_REPEATS = 20
_BITS = jnp.uint16

_Array = TypeVar('_Array', jax.Array, np.ndarray)


def choose_parts(mesh: Mesh) -> Bfloat16Parts:
  """Returns what the devices of `mesh` compute in bfloat16."""
  if mesh.devices.flat[0].platform != 'cpu':
    return 'all'
  is_fast = _has_fast_products()
  if mesh.is_multi_process:  # all processes must run the same programs
    is_fast = bool(multihost_utils.broadcast_one_to_all(is_fast))
  return 'products' if is_fast else 'none'


def as_bits(x: jax.Array) -> jax.Array:
  """Returns an array of bfloat16 as uint16, for the weights of stacked layers on CPUs.

  XLA converts every layer that it takes out of a stack of bfloat16 to float32 and back, element by
  element, which takes longer than a product with a few hundred tokens. It copies integers.
  """
  return x.view(_BITS)


def from_bits(x: _Array) -> _Array:
  """Returns the array of bfloat16 that `as_bits` was given; any other array as it is."""
  return x.view(jnp.bfloat16) if is_bits(x) else x


def is_bits(x: jax.Array | np.ndarray) -> bool:
  """Returns whether an array comes from `as_bits`."""
  return x.dtype == _BITS


@functools.cache
def _has_fast_products() -> bool:
  """Returns whether this CPU multiplies matrices faster in bfloat16; says so once if not.

  It is measured, in about 0.2 s: the flags of a CPU do not tell whether XLA uses its instructions.
  """
  cpu = jax.local_devices(backend='cpu')[0]
  multiply = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
  best: dict[str, float] = {}
  with jax.default_device(cpu):
    pairs = {dtype: jnp.ones((_SIZE, _SIZE), dtype) for dtype in ('float32', 'bfloat16')}
    for _ in range(1 + _REPEATS):  # the first compiles
      for dtype, x in pairs.items():
        start = time.perf_counter()
        multiply(x, x).block_until_ready()
        best[dtype] = min(best.get(dtype, float('inf')), time.perf_counter() - start)
  is_fast = best['float32'] > _LEAST_SPEEDUP * best['bfloat16']
  if not is_fast:
    log.warning('this CPU multiplies matrices no faster in bfloat16: here the dtype bfloat16 '
                'computes in float32')
  return is_fast
