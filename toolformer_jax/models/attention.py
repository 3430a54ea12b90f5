"""Softmax attention: in XLA over any keys and values, in kernels over a packed row's own.

XLA's code takes caches and prefixes and runs everywhere, but all its scores lie in memory,
[B, N, T, S]. The kernels keep a tile of them at a time: Pallas' splash attention on TPUs, cuDNN's
flash attention on GPUs.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

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
from toolformer_jax.models.ops import MATMUL_OUTPUT, einsum
from toolformer_jax.sharding import partition_spec

Kernel = Literal['xla', 'splash', 'cudnn']

_MASKED = -1e30  # not -inf: a row that sees nothing must stay finite
_TILE = 128  # tokens that a kernel computes at once, at least
_LARGEST_BLOCK = 512  # and at most; this has to fit a TPU's fast memory


def attend(
    q_BTNH: jax.Array, sources: Sequence[tuple[jax.Array, jax.Array, jax.Array]]
) -> jax.Array:
  """Returns softmax attention [B, T, N, H] over the union of several sources of keys and values.

  Args:
    q_BTNH: queries, not yet scaled.
    sources: (k_PKHS, v_PKSH, mask_BTS) each. The batch's rows are divided evenly over the P rows
      of a source, so that keys shared by many rows are stored and read once. Every token sees at
      least one slot of the last source.
  """
  q_BTNH = q_BTNH * jnp.asarray(q_BTNH.shape[-1]**-0.5, q_BTNH.dtype)
  parts = [_attend_one(q_BTNH, *source) for source in sources]
  top_BTN = functools.reduce(jnp.maximum, [peak for _, _, peak in parts])
  weights = [jnp.exp(peak - top_BTN) for _, _, peak in parts]
  total_BTN = sum(w * mass for w, (_, mass, _) in zip(weights, parts, strict=True))
  out_BTNH = sum(w[..., None] * out for w, (out, _, _) in zip(weights, parts, strict=True))
  return (out_BTNH / total_BTN[..., None]).astype(q_BTNH.dtype)


def attend_causal(
    q_BTNH: jax.Array, k_BKHT: jax.Array, v_BKTH: jax.Array, mask_BTT: jax.Array
) -> jax.Array:
  """Returns `attend` of each row to itself where no token sees a later one.

  Every quarter of the queries reads the keys up to its own end only: 5/8 of the work.
  """
  T = q_BTNH.shape[1]
  size = T // 4 if T % 64 == 0 else T
  quarters = [
      attend(q_BTNH[:, end - size:end],
             [(k_BKHT[..., :end], v_BKTH[:, :, :end], mask_BTT[:, end - size:end, :end])])
      for end in range(size, T + 1, size)]
  return jnp.concatenate(quarters, 1)


def _attend_one(q_BTNH, k_PKHS, v_PKSH, mask_BTS):
  """Returns one source's share: the sum of values weighted by exp(score - peak), the sum of those
  weights and the peak score, all float32. Shares of several sources add up once their peaks agree.
  """
  B, T, N, H = q_BTNH.shape
  P, K, _, S = k_PKHS.shape
  X, G = B // P * T, N // K
  q_PKXGH = q_BTNH.reshape(P, X, K, G, H).swapaxes(1, 2)
  score_PKXGS = checkpoint_name(
      einsum('pkxgh,pkhs->pkxgs', 'float32', q_PKXGH, k_PKHS), MATMUL_OUTPUT)
  score_PKXGS = jnp.where(mask_BTS.reshape(P, 1, X, 1, S), score_PKXGS, _MASKED)
  # The output does not depend on the peak, only its rounding does: no gradient goes through it.
  peak_PKXG = jax.lax.stop_gradient(score_PKXGS.max(-1))
  weight_PKXGS = jnp.exp(score_PKXGS - peak_PKXG[..., None])
  out_PKXGH = checkpoint_name(
      jnp.einsum('pkxgs,pksh->pkxgh', weight_PKXGS.astype(v_PKSH.dtype), v_PKSH,
                 preferred_element_type=jnp.float32), MATMUL_OUTPUT)
  def by_row(x_PKXG):
    return x_PKXG.swapaxes(1, 2).reshape(B, T, N, *x_PKXG.shape[4:])
  return by_row(out_PKXGH), by_row(weight_PKXGS.sum(-1)), by_row(peak_PKXG)


def kernel_for(mesh: Mesh, config: DecoderConfig) -> Kernel:
  """Returns what computes the attention of packed rows on the devices of `mesh`."""
  device = mesh.devices.flat[0]
  if device.platform == 'tpu':
    return 'splash'
  if device.platform == 'gpu' and config.dtype == 'bfloat16' and not config.sliding_window:
    # '8.0' is an A100, the first that cuDNN's kernel runs on; AMD's are like 'gfx90a'.
    major = device.compute_capability.split('.')[0]
    if major.isdigit() and int(major) >= 8 and config.head_dim <= 128 and config.head_dim % 8 == 0:
      return 'cudnn'
  return 'xla'


def takes_length(kernel: Kernel, tokens: int) -> bool:
  """Tells whether `kernel` computes rows of that many tokens: whole tiles."""
  return kernel != 'xla' and tokens % _TILE == 0


def attend_packed(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segments_BT: jax.Array | None,
    kernel: Kernel, window: int = 0,
) -> jax.Array:
  """Returns causal attention [B, T, N, H] of packed rows, by a kernel that `takes_length` T.

  Compilers cannot split a kernel, so every device calls it for its own rows and heads. Where the
  mesh splits the query heads more ways than there are key/value heads, each device needs a copy of
  the one that its queries read.

  Args:
    q_BTNH: queries, not yet scaled.
    k_BTKH: keys; each belongs to N / K query heads that follow each other.
    v_BTKH: values.
    segments_BT: tokens see those of their own segment, up to themselves; None: a row is one.
    kernel: 'splash' or 'cudnn'.
    window: how many tokens a token sees, itself the last of them; 0: all before it. Only splash.
  """
  if segments_BT is None:
    segments_BT = jnp.zeros(q_BTNH.shape[:2], jnp.int32)
  if window and kernel != 'splash':
    raise ValueError(f'the kernel {kernel} has no windows')
  attend_here = functools.partial(_splash, window=window) if kernel == 'splash' else _cudnn
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return attend_here(q_BTNH, k_BTKH, v_BTKH, segments_BT)
  q_spec = partition_spec(q_BTNH.shape, ('batch', None, 'heads', None), dict(mesh.shape))
  ways = q_BTNH.shape[2] // NamedSharding(mesh, q_spec).shard_shape(q_BTNH.shape)[2]
  copies = ways // math.gcd(k_BTKH.shape[2], ways)
  k_BTKH, v_BTKH = (jnp.repeat(x, copies, 2) for x in (k_BTKH, v_BTKH))
  return jax.shard_map(
      attend_here, in_specs=(q_spec, q_spec, q_spec, PartitionSpec(q_spec[0])), out_specs=q_spec,
      check_vma=False,  # a kernel's output does not say what it varies over
  )(q_BTNH, k_BTKH, v_BTKH, segments_BT)


def _splash(q_BTNH, k_BTKH, v_BTKH, segments_BT, window):
  """Returns `attend_packed` on one TPU (jax.experimental.pallas.ops.tpu.splash_attention)."""
  _, T, N, H = q_BTNH.shape
  block = math.gcd(T, _LARGEST_BLOCK)  # blocks must divide the length
  mask = LocalMask((T, T), (window - 1, 0), 0) if window else CausalMask((T, T))
  kernel = make_splash_mha_single_device(
      MultiHeadMask([mask] * N),
      block_sizes=BlockSizes(
          block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block,
          block_kv_dq=block),
      residual_checkpoint_name=MATMUL_OUTPUT)  # else a backward pass would call the kernel again
  q_BTNH = q_BTNH * jnp.asarray(H**-0.5, q_BTNH.dtype)
  q_BNTH, k_BKTH, v_BKTH = (x.swapaxes(1, 2) for x in (q_BTNH, k_BTKH, v_BTKH))
  out_BNTH = jax.vmap(kernel)(q_BNTH, k_BKTH, v_BKTH, SegmentIds(segments_BT, segments_BT))
  return out_BNTH.swapaxes(1, 2)


def _cudnn(q_BTNH, k_BTKH, v_BTKH, segments_BT):
  """Returns `attend_packed` on one GPU (jax.nn.dot_product_attention).

  The mask of segments lies in memory, but no scores do. In training JAX 0.10 also has cuDNN compute
  the mask's gradient, of the same size, which nobody reads (jax issue 34685).
  """
  mask_B1TT = segments_BT[:, None, :, None] == segments_BT[:, None, None]
  return checkpoint_name(jax.nn.dot_product_attention(
      q_BTNH, k_BTKH, v_BTKH, mask=mask_B1TT, is_causal=True, implementation='cudnn'),
      MATMUL_OUTPUT)
