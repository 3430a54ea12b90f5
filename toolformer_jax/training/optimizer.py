"""The optimizer: gradient clipping, AdamW, and the learning-rate schedule.

A new option is a field of `FinetuneConfig` and a transformation of the chain in `make_optimizer`.
"""

from typing import Any

import jax
import optax

from toolformer_jax.models.adapter_config import AdaLoraConfig
from toolformer_jax.training.adalora import allocate_ranks
from toolformer_jax.training.config import FinetuneConfig

_NOT_DECAYED = {'bias', 'scale', 'down_bias', 'up_bias'}


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


def make_optimizer(config: FinetuneConfig) -> optax.GradientTransformationExtraArgs:
  """Returns the chain of transformations from gradients to updates.

  The gradients are also its argument `grads`, for those that see updates alone.

  Raises:
    UserError: the schedule of AdaLoRA does not fit the number of steps.
  """
  chain = [
      optax.clip_by_global_norm(config.max_grad_norm),
      optax.adamw(lambda step: learning_rate(step, config), config.beta1, config.beta2,
                  weight_decay=config.weight_decay, mask=_decays,
                  mu_dtype=config.first_moment)]
  if isinstance(config.adapter, AdaLoraConfig):
    chain.append(allocate_ranks(config.adapter, config.steps))
  return optax.with_extra_args_support(optax.chain(*chain))


def _decays(params: Any) -> Any:
  """Returns the mask of weight decay: True except for biases, and scales of norms and IA3."""
  def decays(path: tuple[Any, ...], _: jax.Array) -> bool:
    return not {getattr(key, 'key', None) for key in path} & _NOT_DECAYED
  return jax.tree_util.tree_map_with_path(decays, params)
