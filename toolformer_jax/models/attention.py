"""Softmax attention: by XLA over any keys and values, by kernels within packed rows.

XLA's attention reads caches and prefixes and runs everywhere, but keeps all scores in memory,
[B, N, T, S]. The kernels keep one tile of the scores at a time: Pallas' splash attention on TPUs,
cuDNN's flash attention on GPUs.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import (
  BlockSizes,
  CausalMask,
  LocalMask,
  MultiHeadMask,
  SegmentIds,
  make_splash_mha_single_device,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.ops import einsum
from toolformer_jax.models.remat import MATMUL_OUTPUT
from toolformer_jax.sharding import partition_spec

Kernel = Literal['xla', 'splash', 'cudnn']

_MASKED = -1e30  # not -inf: the result must stay finite for a row that attends to nothing
_TILE = 128  # smallest number of tokens that a kernel computes at once
_LARGEST_BLOCK = 512  # largest number; blocks must fit a TPU's vector memory


def attend(
    q_BTNH: jax.Array, sources: Sequence[tuple[jax.Array, jax.Array, jax.Array]]
) -> jax.Array:
  """Returns softmax attention [B, T, N, H] over the union of several sources of keys and values.

  Args:
    q_BTNH: queries, not yet scaled.
    sources: tuples (k_PKHS, v_PKSH, mask_BTS). The batch's rows are divided evenly over the P rows
      of a source, so that keys shared by many rows are stored and read once. Every token attends
      to at least one slot of the last source.
  """
  q_BTNH = q_BTNH * jnp.asarray(q_BTNH.shape[-1]**-0.5, q_BTNH.dtype)
  partials = [_partial_attention(q_BTNH, *source) for source in sources]
  max_BTN = functools.reduce(jnp.maximum, [partial.max_BTN for partial in partials])
  scales = [jnp.exp(partial.max_BTN - max_BTN) for partial in partials]
  pairs = list(zip(scales, partials, strict=True))
  sum_BTN = functools.reduce(
      jnp.add, [scale_BTN * partial.sum_BTN for scale_BTN, partial in pairs])
  out_BTNH = functools.reduce(
      jnp.add, [scale_BTN[..., None] * partial.out_BTNH for scale_BTN, partial in pairs])
  return (out_BTNH / sum_BTN[..., None]).astype(q_BTNH.dtype)


def attend_causal(
    q_BTNH: jax.Array, k_BKHT: jax.Array, v_BKTH: jax.Array, mask_BTT: jax.Array
) -> jax.Array:
  """Returns `attend` of each row to itself, where no token attends to a later one.

  Each quarter of the queries reads only the keys up to its own end: 5/8 of the work.

  Args:
    q_BTNH: queries, not yet scaled.
    k_BKHT, v_BKTH: keys and values of the same tokens.
    mask_BTT: which tokens (last dimension) each token attends to.
  """
  T = q_BTNH.shape[1]
  size = T // 4 if T % 64 == 0 else T
  quarters = [
      attend(q_BTNH[:, end - size:end],
             [(k_BKHT[..., :end], v_BKTH[:, :, :end], mask_BTT[:, end - size:end, :end])])
      for end in range(size, T + 1, size)]
  return jnp.concatenate(quarters, 1)


class _Partial(NamedTuple):
  """Attention to one source, before normalisation; float32.

  Partials of several sources add up once they are scaled to the same maximum.

  Attributes:
    out_BTNH: sum of the values, weighted by exp(score - max).
    sum_BTN: sum of the weights, the softmax's denominator.
    max_BTN: maximum of the scores.
  """

  out_BTNH: jax.Array
  sum_BTN: jax.Array
  max_BTN: jax.Array


def _partial_attention(q_BTNH: jax.Array, k_PKHS: jax.Array, v_PKSH: jax.Array, mask_BTS: jax.Array
                       ) -> _Partial:
  B, T, N, H = q_BTNH.shape
  P, K, _, S = k_PKHS.shape
  X, G = B // P * T, N // K  # X: tokens of all rows that share a row of the source
  q_PKXGH = q_BTNH.reshape(P, X, K, G, H).swapaxes(1, 2)
  score_PKXGS = checkpoint_name(
      einsum('pkxgh,pkhs->pkxgs', 'float32', q_PKXGH, k_PKHS), MATMUL_OUTPUT)
  score_PKXGS = jnp.where(mask_BTS.reshape(P, 1, X, 1, S), score_PKXGS, _MASKED)
  # The output does not depend on the maximum, only its rounding does: it needs no gradient.
  max_PKXG = jax.lax.stop_gradient(score_PKXGS.max(-1))
  weight_PKXGS = jnp.exp(score_PKXGS - max_PKXG[..., None])
  out_PKXGH = checkpoint_name(
      jnp.einsum('pkxgs,pksh->pkxgh', weight_PKXGS.astype(v_PKSH.dtype), v_PKSH,
                 preferred_element_type=jnp.float32), MATMUL_OUTPUT)
  def to_rows(x_PKXG: jax.Array) -> jax.Array:
    return x_PKXG.swapaxes(1, 2).reshape(B, T, N, *x_PKXG.shape[4:])
  return _Partial(to_rows(out_PKXGH), to_rows(weight_PKXGS.sum(-1)), to_rows(max_PKXG))


def choose_kernel(mesh: Mesh, config: DecoderConfig) -> Kernel:
  """Returns what computes the attention of packed rows on the devices of `mesh`."""
  device = mesh.devices.flat[0]
  if device.platform == 'tpu':
    return 'splash'
  if device.platform == 'gpu' and config.dtype == 'bfloat16' and not config.sliding_window:
    # '8.0' is an A100, the first GPU that cuDNN's kernel supports; AMD's are like 'gfx90a'.
    major = device.compute_capability.split('.')[0]
    if major.isdigit() and int(major) >= 8 and config.head_dim <= 128 and config.head_dim % 8 == 0:
      return 'cudnn'
  return 'xla'


def supports_length(kernel: Kernel, tokens: int) -> bool:
  """Returns whether `kernel` computes rows of `tokens` tokens: these must be whole tiles."""
  return kernel != 'xla' and tokens % _TILE == 0


def attend_packed(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_ids_BT: jax.Array | None,
    kernel: Kernel, window: int = 0,
) -> jax.Array:
  """Returns causal attention [B, T, N, H] within packed rows, by a kernel that supports length T.

  Compilers cannot partition a kernel, so each device calls it for its own rows and heads. Where the
  mesh splits the query heads into more parts than there are key/value heads, each device gets a
  copy of the key/value head that its queries read.

  Args:
    q_BTNH: queries, not yet scaled.
    k_BTKH: keys; each head belongs to N / K consecutive query heads.
    v_BTKH: values.
    segment_ids_BT: tokens attend to their own segment, up to themselves; None: a row is one
      segment.
    kernel: 'splash' or 'cudnn'.
    window: number of tokens that a token attends to, itself included; 0: all before it. Splash
      only.

  Raises:
    ValueError: the kernel does not support a window.
  """
  if segment_ids_BT is None:
    segment_ids_BT = jnp.zeros(q_BTNH.shape[:2], jnp.int32)
  if window and kernel != 'splash':
    raise ValueError(f'the kernel {kernel} does not support a sliding window')
  attend_local = functools.partial(_splash, window=window) if kernel == 'splash' else _cudnn
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return attend_local(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
  q_spec = partition_spec(q_BTNH.shape, ('batch', None, 'heads', None), dict(mesh.shape))
  head_shards = q_BTNH.shape[2] // NamedSharding(mesh, q_spec).shard_shape(q_BTNH.shape)[2]
  copies = head_shards // math.gcd(k_BTKH.shape[2], head_shards)
  k_BTKH, v_BTKH = (jnp.repeat(x, copies, 2) for x in (k_BTKH, v_BTKH))
  return jax.shard_map(
      attend_local, in_specs=(q_spec, q_spec, q_spec, PartitionSpec(q_spec[0])), out_specs=q_spec,
      check_vma=False,  # a kernel's output does not say over which mesh axes it varies
  )(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)


def _splash(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_ids_BT: jax.Array,
            window: int) -> jax.Array:
  """Returns `attend_packed` on one TPU (jax.experimental.pallas.ops.tpu.splash_attention)."""
  _, T, N, H = q_BTNH.shape
  block = math.gcd(T, _LARGEST_BLOCK)  # blocks must divide the length
  mask = LocalMask((T, T), (window - 1, 0), 0) if window else CausalMask((T, T))
  kernel = make_splash_mha_single_device(
      MultiHeadMask([mask] * N),
      block_sizes=BlockSizes(
          block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block,
          block_kv_dq=block),
      residual_checkpoint_name=MATMUL_OUTPUT)  # else the backward pass recomputes it
  q_BTNH = q_BTNH * jnp.asarray(H**-0.5, q_BTNH.dtype)
  q_BNTH, k_BKTH, v_BKTH = (x.swapaxes(1, 2) for x in (q_BTNH, k_BTKH, v_BTKH))
  out_BNTH = jax.vmap(kernel)(q_BNTH, k_BKTH, v_BKTH, SegmentIds(segment_ids_BT, segment_ids_BT))
  return out_BNTH.swapaxes(1, 2)


def _cudnn(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_ids_BT: jax.Array
           ) -> jax.Array:
  """Returns `attend_packed` on one GPU (jax.nn.dot_product_attention).

  The mask of the segments is kept in memory, [B, 1, T, T], but no scores are. In training JAX 0.10
  also lets cuDNN compute the mask's gradient, which has the same size and is never read (jax issue
  34685).
  """
  mask_B1TT = segment_ids_BT[:, None, :, None] == segment_ids_BT[:, None, None]
  return checkpoint_name(jax.nn.dot_product_attention(
      q_BTNH, k_BTKH, v_BTKH, mask=mask_B1TT, is_causal=True, implementation='cudnn'),
      MATMUL_OUTPUT)
