"""The optimizer: gradient clipping, AdamW, and the learning-rate schedule.

A new option is a field of `FinetuneConfig` and a transformation of the chain in `make_optimizer`.
"""

from typing import Any

import jax
import optax

from toolformer_jax.training.config import FinetuneConfig


def learning_rate(step: int | jax.Array, config: FinetuneConfig) -> jax.Array:
  """Returns the learning rate of update number `step` (from 0), a float32 scalar.

  It rises linearly (paper, appendix B) and then follows `config.schedule`.
  """
  peak, warmup = config.learning_rate, max(1, round(config.warmup_fraction * config.steps))
  rest, last = max(1, config.steps - warmup), config.final_rate
  falling = {
      'constant': optax.schedules.constant_schedule(peak),
      'cosine': optax.schedules.cosine_decay_schedule(peak, rest, alpha=last),
      'linear': optax.schedules.linear_schedule(peak, last * peak, rest)}
  rising = optax.schedules.linear_schedule(0.0, peak, warmup)
  # The first update counts as one step of the warm-up: at rate 0 it would do nothing.
  return optax.schedules.join_schedules([rising, falling[config.schedule]], [warmup])(step + 1)


def make_optimizer(config: FinetuneConfig) -> optax.GradientTransformation:
  """Returns the chain of transformations from gradients to updates."""
  return optax.chain(
      optax.clip_by_global_norm(config.max_grad_norm),
      optax.adamw(lambda step: learning_rate(step, config), config.beta1, config.beta2,
                  weight_decay=config.weight_decay, mask=_decays,
                  mu_dtype=config.first_moment))


def _decays(params: Any) -> Any:
  """Returns the mask of weight decay: True except for biases and the scales of norms."""
  def decays(path: tuple[Any, ...], _: jax.Array) -> bool:
    return not {getattr(key, 'key', None) for key in path} & {'bias', 'scale'}
  return jax.tree_util.tree_map_with_path(decays, params)
