"""The optimizer: AdamW with clipped gradients, and the schedule of its learning rate."""

import jax
import optax

from toolformer_jax.training.config import FinetuneConfig


def learning_rate(step: int | jax.Array, settings: FinetuneConfig) -> jax.Array:
  """Returns the rate of update number `step` (from 0).

  It rises linearly (paper, appendix B) and then does what the settings say.
  """
  peak, warmup = settings.learning_rate, max(1, round(settings.warmup_fraction * settings.steps))
  rest, last = max(1, settings.steps - warmup), settings.final_rate
  falling = {
      'constant': optax.schedules.constant_schedule(peak),
      'cosine': optax.schedules.cosine_decay_schedule(peak, rest, alpha=last),
      'linear': optax.schedules.linear_schedule(peak, last * peak, rest)}
  rising = optax.schedules.linear_schedule(0.0, peak, warmup)
  # The first update counts as one step of the warm-up: at rate 0 it would do nothing.
  return optax.schedules.join_schedules([rising, falling[settings.schedule]], [warmup])(step + 1)


def make_optimizer(settings: FinetuneConfig) -> optax.GradientTransformation:
  """Returns the whole chain, from gradients to updates."""
  return optax.chain(
      optax.clip_by_global_norm(settings.max_grad_norm),
      optax.adamw(lambda step: learning_rate(step, settings), settings.beta1, settings.beta2,
                  weight_decay=settings.weight_decay, mu_dtype=settings.first_moment))
