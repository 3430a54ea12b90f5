"""The optimizer: AdamW with clipped gradients and a linear warm-up (paper, appendix B)."""

import jax
import jax.numpy as jnp
import optax

from toolformer_jax.training.settings import FinetuneSettings


def learning_rate(step: int | jax.Array, settings: FinetuneSettings) -> jax.Array:
  """Returns the rate of update number `step` (from 0): a linear rise, then constant."""
  warmup_steps = max(1.0, settings.warmup_fraction * settings.steps)
  return settings.learning_rate * jnp.minimum(1.0, (step + 1) / warmup_steps)


def make_optimizer(settings: FinetuneSettings) -> optax.GradientTransformation:
  """Returns the whole chain, from gradients to updates."""
  return optax.chain(
      optax.clip_by_global_norm(settings.clip_norm),
      optax.adamw(lambda step: learning_rate(step, settings), settings.beta1, settings.beta2,
                  weight_decay=settings.weight_decay))
