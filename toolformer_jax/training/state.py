"""What a training step changes, how it lies on the mesh, and the step itself."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toolformer_jax import sharding
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import abstract_variables
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.packing import PackedRows

Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
  """The arrays that a step replaces.

  Attributes:
    trained: the collection of variables that is trained, 'params' or 'lora'.
    optimizer: the optimizer's own state.
    step: number of updates done, int32.
  """

  trained: Any
  optimizer: Any
  step: jax.Array


def abstract_state(decoder: Decoder, collection: str, optimizer: optax.GradientTransformation,
                   mesh: jax.sharding.Mesh) -> TrainState:
  """Returns shape, dtype and sharding of every array of the state, without making any.

  The optimizer's moments get the shardings of what they are moments of: left to the compiler they
  would be replicated, since zeros do not depend on any parameter.
  """
  trained = abstract_variables(decoder)[collection]
  boxed = TrainState(trained, jax.eval_shape(optimizer.init, trained),
                     jax.ShapeDtypeStruct((), np.int32))
  return sharding.laid_out(boxed, mesh)


def initial_state(abstract: TrainState, trained: Any,
                  optimizer: optax.GradientTransformation) -> TrainState:
  """Returns the state before the first step; `trained` becomes part of it."""
  where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  moments = jax.jit(optimizer.init, out_shardings=where.optimizer)(trained)
  return TrainState(trained, moments, jax.device_put(np.int32(0), where.step))


def initial_adapters(decoder: Decoder, where: Any, seed: int) -> Any:
  """Returns adapters that do not change the output yet, laid out as the shardings `where` say."""
  def make():
    variables = decoder.init(jax.random.key(seed), jnp.zeros((1, 2), jnp.int32))
    return sharding.unbox(variables['lora'])
  return jax.jit(make, out_shardings=where)()


def make_step(
    decoder: Decoder, collection: str, optimizer: optax.GradientTransformation,
    abstract: TrainState,
) -> Callable[[dict[str, Any], TrainState, PackedRows], tuple[TrainState, Metrics]]:
  """Returns the jitted step (frozen variables, state, batch) -> (state, metrics).

  The old state is donated: its arrays are gone afterwards. Metrics are the mean loss in nats per
  token and the gradients' global norm, both before the update.
  """
  def step(frozen, state, batch):
    def mean_loss(trained):
      total, weight = next_token_loss(decoder, {**frozen, collection: trained}, batch)
      return total / jnp.maximum(weight, 1e-6)  # a batch may hold nothing but masked results
    loss, gradients = jax.value_and_grad(mean_loss)(state.trained)
    updates, moments = optimizer.update(gradients, state.optimizer, state.trained)
    trained = optax.apply_updates(state.trained, updates)
    metrics = {'loss': loss, 'gradient_norm': optax.tree.norm(gradients)}
    return TrainState(trained, moments, state.step + 1), metrics
  # Without being told, the compiler may return the state laid out otherwise than it came.
  where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  return jax.jit(step, donate_argnums=1, out_shardings=(where, None))
