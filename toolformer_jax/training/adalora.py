"""AdaLoRA's budget (Zhang et al. 2023): which ranks of the adapters are kept, step by step.

It is the last transformation of the optimizer, so that nobody has to call it. The schedule and the
scores are those of PEFT's `RankAllocator`, with the number of updates done as its `global_step`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toolformer_jax.models.adapter_config import AdaLoraConfig


class AdaLoraState(NamedTuple):
  """What the choice of ranks depends on.

  Attributes:
    step: number of updates done, int32 scalar.
    sensitivity: moving averages of |weight * gradient|, in the form of the weights.
    uncertainty: moving averages of the sensitivity's deviation from its average.
    masks: for each E which ranks are kept, bool; True until the first choice.
  """

  step: jax.Array
  sensitivity: Any
  uncertainty: Any
  masks: list[Any]


def budgets(config: AdaLoraConfig, steps: int, ranks: int) -> np.ndarray:
  """Returns how many ranks all modules together have after 0, 1, ... `steps` updates, int32.

  Args:
    config: the schedule.
    steps: number of updates of the training.
    ranks: number of ranks at the beginning, of all modules and layers.

  Raises:
    UserError: tinit and tfinal leave no step in between.
  """
  config.check_steps(steps)
  last, target = steps - config.tfinal, ranks // config.init_rank * config.target_rank
  done = np.arange(steps + 1)
  left = 1 - (done - config.tinit) / (last - config.tinit)
  falling = ((ranks - target) * left**3 + target).astype(np.int32)
  return np.where(done <= config.tinit, ranks, np.where(done > last, target, falling)).astype(
      np.int32)


def allocate_ranks(config: AdaLoraConfig, steps: int) -> optax.GradientTransformationExtraArgs:
  """Returns the transformation that takes ranks away from AdaLoRA adapters.

  It comes after the optimizer, whose updates it gets; the gradients are its argument `grads`.
  Updates set E to zero where a rank is not kept.

  Args:
    config: of the adapter.
    steps: number of updates of the training.
  """
  config.check_steps(steps)
  last = steps - config.tfinal
  def init(params: Any) -> AdaLoraState:
    zeros = jax.tree.map(jnp.zeros_like, params)
    masks = [jax.tree.map(lambda x: jnp.ones(x.shape, bool), one['e']) for one in _triplets(params)]
    return AdaLoraState(jnp.int32(0), zeros, jax.tree.map(jnp.zeros_like, params), masks)
  def update(updates: Any, state: AdaLoraState, params: Any = None, *, grads: Any,
             **unused: Any) -> tuple[Any, AdaLoraState]:
    """Returns the updates, in which the E of removed ranks becomes zero, and the next state."""
    del unused
    step = state.step + 1
    moved = optax.apply_updates(params, updates)
    averages = _averages(config, state, moved, grads)
    before_last = step < last
    sensitivity, uncertainty = jax.tree.map(
        lambda new, old: jnp.where(before_last, new, old), averages,
        (state.sensitivity, state.uncertainty))
    scores = [_scores(one, other) for one, other in zip(
        _triplets(sensitivity), _triplets(uncertainty), strict=True)]
    chosen = _most_important(scores, _budget_at(config, steps, scores, step))
    choose = (step > config.tinit) & before_last & (step % config.delta_t == 0) | (step == last)
    masks = [jnp.where(choose, new, old) for new, old in zip(chosen, state.masks, strict=True)]
    applies = choose | (step > last)
    updates = _masked(updates, params, masks, applies)
    return updates, AdaLoraState(step, sensitivity, uncertainty, masks)
  return optax.GradientTransformationExtraArgs(init, update)


def orthogonality_penalty(params: Any) -> jax.Array:
  """Returns the mean of ||A^T A - I|| and ||B B^T - I|| (Frobenius) over all matrices, a scalar."""
  def distances(matrix_LRX: jax.Array) -> jax.Array:
    product_LRR = jnp.einsum('lrx,lsx->lrs', matrix_LRX, matrix_LRX)
    return jnp.linalg.norm(product_LRR - jnp.eye(product_LRR.shape[-1]), axis=(1, 2))
  found = []
  for triplet in _triplets(params):
    layers, rank = triplet['e'].shape
    a_LXR, b_LRX = triplet['a'].reshape(layers, -1, rank), triplet['b'].reshape(layers, rank, -1)
    found += [distances(a_LXR.swapaxes(1, 2)), distances(b_LRX)]
  return jnp.concatenate(found).mean()


def _triplets(tree: Any) -> list[dict[str, Any]]:
  """Returns the dictionaries {'a', 'b', 'e'} in a tree of adapters, in the order of their paths."""
  if 'e' in tree:
    return [tree]
  return [one for name in sorted(tree) for one in _triplets(tree[name])]


def _averages(config: AdaLoraConfig, state: AdaLoraState, params: Any, grads: Any
              ) -> tuple[Any, Any]:
  """Returns the moving averages of the sensitivity and of its uncertainty."""
  now = jax.tree.map(lambda x, grad: jnp.abs(x * grad), params, grads)
  sensitivity = jax.tree.map(
      lambda old, new: config.beta1 * old + (1 - config.beta1) * new, state.sensitivity, now)
  uncertainty = jax.tree.map(
      lambda old, new, mean: config.beta2 * old + (1 - config.beta2) * jnp.abs(new - mean),
      state.uncertainty, now, sensitivity)
  return sensitivity, uncertainty


def _scores(sensitivity: dict[str, jax.Array], uncertainty: dict[str, jax.Array]) -> jax.Array:
  """Returns the importance of each rank of a module in all layers, [L, R]."""
  scores = jax.tree.map(jnp.multiply, sensitivity, uncertainty)
  layers, rank = scores['e'].shape
  return (scores['e'] + scores['a'].reshape(layers, -1, rank).mean(1)
          + scores['b'].reshape(layers, rank, -1).mean(2))


def _budget_at(config: AdaLoraConfig, steps: int, scores: list[jax.Array], step: jax.Array
               ) -> jax.Array:
  """Returns how many ranks are kept after `step` updates, and how many there are."""
  table = budgets(config, steps, sum(one.size for one in scores))
  return jnp.asarray(table)[jnp.minimum(step, steps)]


def _most_important(scores: list[jax.Array], budget: jax.Array) -> list[jax.Array]:
  """Returns which ranks of each module are among the `budget` most important ones of all."""
  ordered = jnp.sort(jnp.concatenate([one.ravel() for one in scores]))
  removed = ordered.size - budget
  threshold = jnp.where(removed > 0, ordered[jnp.maximum(removed - 1, 0)], -jnp.inf)
  return [one > threshold for one in scores]


def _masked(updates: Any, params: Any, masks: list[jax.Array], applies: jax.Array) -> Any:
  """Returns `updates` that set E to zero where a mask applies and is False."""
  left = iter(masks)
  def visit(updates: Any, params: Any) -> Any:
    if 'e' not in updates:
      return {name: visit(updates[name], params[name]) for name in sorted(updates)}
    keep = next(left) | ~applies
    return updates | {'e': jnp.where(keep, updates['e'], -params['e'])}
  return visit(updates, params)
