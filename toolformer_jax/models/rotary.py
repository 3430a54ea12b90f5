"""Rotary position embeddings (Su et al. 2021), and their scaling to longer contexts."""

import math

import jax
import jax.numpy as jnp

from toolformer_jax.models.config import DecoderConfig


def rotary_angles(positions_BT: jax.Array, config: DecoderConfig) -> tuple[jax.Array, jax.Array]:
  """Returns sine and cosine for each position and frequency, [B, T, rotary_dim / 2], float32.

  Both are multiplied by `rotary_attention_factor`, so that attention scores grow by its square.
  """
  angle = positions_BT[..., None].astype(jnp.float32) * rotary_frequencies(config)
  scale = config.rotary_attention_factor
  return jnp.sin(angle) * scale, jnp.cos(angle) * scale


def rotary_frequencies(config: DecoderConfig) -> jax.Array:
  """Returns each pair's rotation per position, in radians, [rotary_dim / 2], float32."""
  c = config
  frequency = c.rotary_base**(-jnp.arange(0, c.rotary_dim, 2, dtype=jnp.float32) / c.rotary_dim)
  if c.rotary_divisors:
    return frequency / jnp.array(c.rotary_divisors, jnp.float32)
  unscaled = _yarn_unscaled(c) if c.rotary_beta_fast else _llama3_unscaled(c, frequency)
  return frequency * ((1 - unscaled) / c.rotary_scaling_factor + unscaled)


def _llama3_unscaled(c: DecoderConfig, frequency: jax.Array) -> jax.Array:
  """Returns for each pair the share of the original frequency, by Llama 3's rule."""
  rotations = c.rotary_original_positions * frequency / (2 * jnp.pi)  # in the pretraining length
  low, high = c.rotary_low_freq_factor, c.rotary_high_freq_factor
  return jnp.clip((rotations - low) / (high - low), 0, 1)


def _yarn_unscaled(c: DecoderConfig) -> jax.Array:
  """Returns for each pair the share of the original frequency (YaRN, Peng et al. 2023, eq. 23)."""
  # In the pretraining length; a fraction lies between two pairs.
  def pair_with(rotations: float) -> float:
    wavelength = c.rotary_original_positions / (rotations * 2 * math.pi)
    return c.rotary_dim * math.log(wavelength) / (2 * math.log(c.rotary_base))
  first = max(math.floor(pair_with(c.rotary_beta_fast)), 0)
  last = min(math.ceil(pair_with(c.rotary_beta_slow)), c.rotary_dim - 1)
  pairs = jnp.arange(c.rotary_dim // 2, dtype=jnp.float32)
  return 1 - jnp.clip((pairs - first) / max(last - first, 1e-3), 0, 1)


def apply_rotary(
    x_BTNH: jax.Array, angles: tuple[jax.Array, jax.Array], config: DecoderConfig
) -> jax.Array:
  """Rotates the first `rotary_dim` dimensions of each head (Su et al. 2021).

  Args:
    x_BTNH: queries or keys.
    angles: sine and cosine from `rotary_angles`.
    config: says which dimensions form a pair.
  """
  sin, cos = (angle[:, :, None].astype(x_BTNH.dtype) for angle in angles)
  rotary, rest = jnp.split(x_BTNH, [config.rotary_dim], -1)
  interleaved = config.positions == 'rotary_interleaved'
  if interleaved:
    first, second = rotary[..., ::2], rotary[..., 1::2]
  else:
    first, second = jnp.split(rotary, 2, -1)
  rotated = [first * cos - second * sin, second * cos + first * sin]
  if interleaved:
    rotated = [jnp.stack(rotated, -1).reshape(rotary.shape)]
  return jnp.concatenate([*rotated, rest], -1)
