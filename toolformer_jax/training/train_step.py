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
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.packing import PackedRows

Metrics = dict[str, jax.Array]
_PAPER = FinetuneConfig()


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
  return sharding.abstract_with_sharding(boxed, mesh)


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
    abstract: TrainState, config: FinetuneConfig = _PAPER,
) -> Callable[[dict[str, Any], TrainState, PackedRows], tuple[TrainState, Metrics]]:
  """Returns the jitted step (frozen variables, state, batch) -> (state, metrics).

  The old state is donated: its arrays are gone afterwards. Metrics are the mean cross-entropy in
  nats per token and the gradients' global norm, both before the update, and the number of tokens.
  Dropout depends on the settings' seed and the step alone. Parameters, second moments and sums of
  gradients stay float32 whatever the computation's dtype is.
  """
  # Without output shardings, the compiler may return the state with other shardings.
  where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  def step(frozen, state, batch):
    weight = jnp.maximum(batch.weights_RT.sum(), 1e-6)  # it may hold nothing but masked results
    def share(trained, rows, key):
      """What some rows add to the mean over the batch: what is minimised, the cross-entropy."""
      sums = next_token_loss(
          decoder, {**frozen, collection: trained}, rows, loss_tokens=config.loss_tokens,
          z_loss=config.z_loss, dropout_key=key if config.dropout else None)
      return sums.minimised / weight, sums.nll / weight
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    gradients, loss = _added_up(jax.grad(share, has_aux=True), state.trained, where.trained, batch,
                                key, config.micro_batches)
    updates, moments = optimizer.update(gradients, state.optimizer, state.trained)
    trained = optax.apply_updates(state.trained, updates)
    metrics = {'loss': loss, 'gradient_norm': optax.tree.norm(gradients),
               'tokens': jnp.count_nonzero(batch.segments_RT)}
    return TrainState(trained, moments, state.step + 1), metrics
  return jax.jit(step, donate_argnums=1, out_shardings=(where, None))


def _added_up(gradient, trained: Any, where: Any, batch: PackedRows, key: jax.Array, parts: int
              ) -> tuple[Any, jax.Array]:
  """Returns the sum of `gradient` (trained, rows, key) over `parts` of the batch."""
  if parts == 1:
    return gradient(trained, batch, key)
  def add(total, part):
    rows, number = part
    more = gradient(trained, rows, jax.random.fold_in(key, number))
    return jax.tree.map(jnp.add, total, more), None
  # Every part has rows of all devices.
  cut = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
  zeros = jax.lax.with_sharding_constraint(jax.tree.map(jnp.zeros_like, trained), where)
  return jax.lax.scan(add, (zeros, jnp.float32(0)), (cut, jnp.arange(parts)))[0]
