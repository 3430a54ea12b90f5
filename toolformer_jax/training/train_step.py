"""The training step: loss, gradients, optimizer update; and the state that a step replaces."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toolformer_jax import sharding
from toolformer_jax.models.adapter_config import AdaLoraConfig
from toolformer_jax.models.decoder import BLOCKS, Decoder
from toolformer_jax.models.kernels import cast_kernels
from toolformer_jax.models.language_model import abstract_variables
from toolformer_jax.training.adalora import orthogonality_penalty
from toolformer_jax.training.adversarial import GradFn, adversarial_grad
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.loss import LossSums, SumsFn, next_token_loss
from toolformer_jax.training.packing import PackedRows
from toolformer_jax.training.privacy.gradients import private_gradients
from toolformer_jax.training.recovery.distillation import Teacher
from toolformer_jax.training.recovery.masks import masked_gradients
from toolformer_jax.training.recovery.quantization import rounded_params

Metrics = dict[str, jax.Array]
FrozenVariables = dict[str, Any]
_PAPER = FinetuneConfig()


class TrainState(NamedTuple):
  """The arrays that a step replaces.

  Attributes:
    params: the collection of variables that is trained, 'params' or 'adapter'; float32.
    opt_state: the state of the optimizer: AdamW's moments have the shapes of `params`.
    step: number of updates done, int32 scalar.
  """

  params: Any
  opt_state: optax.OptState
  step: jax.Array


class TrainStep(Protocol):
  """A jitted training step; the state that it is given is donated."""

  def __call__(self, frozen: FrozenVariables, state: TrainState, batch: PackedRows,
               noise_key: jax.Array | None = None, teacher: FrozenVariables | None = None,
               masks: dict[str, jax.Array] | None = None) -> tuple[TrainState, Metrics]:
    """Returns the state after an update, and the metrics of the state before it."""
    ...

  def trace(self, *arguments: Any, **keywords: Any) -> jax.stages.Traced:
    """Returns the traced step, for arguments that may be shapes."""
    ...


def abstract_train_state(decoder: Decoder, collection: str,
                         optimizer: optax.GradientTransformationExtraArgs, mesh: jax.sharding.Mesh,
                         ) -> TrainState:
  """Returns shape, dtype and sharding of every array of the state, without allocating any.

  The optimizer's moments get the shardings of their parameters. The compiler would replicate them,
  because zeros do not depend on any parameter.
  """
  params = abstract_variables(decoder)[collection]
  boxed = TrainState(params, jax.eval_shape(optimizer.init, params),
                     jax.eval_shape(lambda: jnp.int32(0)))
  return sharding.abstract_with_sharding(boxed, mesh)


def init_train_state(abstract: TrainState, params: Any,
                     optimizer: optax.GradientTransformationExtraArgs) -> TrainState:
  """Returns the state before the first step; it holds `params` itself, not a copy."""
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
  return TrainState(params, opt_state, jax.device_put(np.int32(0), shardings.step))


def make_train_step(
    decoder: Decoder, collection: str, optimizer: optax.GradientTransformationExtraArgs,
    abstract: TrainState, config: FinetuneConfig = _PAPER, teacher_decoder: Decoder | None = None,
) -> TrainStep:
  """Returns the jitted step (frozen variables, state, batch, ...) -> (state, metrics).

  The given state is donated: its arrays cannot be used afterwards. Metrics are float32 or int32
  scalars: `loss`, the mean cross-entropy in nats per token, and `grad_norm`, the global norm of the
  gradients before clipping, both of the state before the update; `tokens`, the number of tokens of
  the batch without padding. Dropout depends only on the config's seed and the step. Parameters,
  second moments and accumulated gradients stay float32 whatever the dtype of the computation is.
  The noise of private training depends on the secret noise key and the step. The key is an
  argument: a constant would be written to the compilation cache with the program. So are the
  variables of the teacher of `config.distillation`, whose decoder is `teacher_decoder`. With masks
  (`recovery.masks`), weights stay zero.
  """
  # Without output shardings, the compiler may return the state with other shardings.
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  def train_step(frozen: FrozenVariables, state: TrainState, batch: PackedRows,
                 noise_key: jax.Array | None = None, teacher: FrozenVariables | None = None,
                 masks: dict[str, jax.Array] | None = None) -> tuple[TrainState, Metrics]:
    """Returns the state after an update with `batch`, and the metrics of the state before it."""
    def loss_sums(params: Any, rows: PackedRows, dropout_key: jax.Array,
                  offsets_RTD: jax.Array | None = None) -> LossSums:
      return next_token_loss(
          decoder, {**frozen, collection: params}, rows, loss_tokens=config.loss_tokens,
          z_loss=config.z_loss, label_smoothing=config.label_smoothing,
          teacher=_teacher(teacher_decoder, teacher, config),
          dropout_key=dropout_key if config.has_dropout else None,
          embedding_offsets_RTD=offsets_RTD)
    dropout_key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    forward_params = rounded_params(state.params, config.qat) if config.qat else state.params
    if config.privacy:
      grads, loss = private_gradients(
          loss_sums, config.privacy, forward_params, batch, batch_size=config.batch_size,
          num_microbatches=config.num_microbatches, dropout_key=dropout_key,
          noise_key=noise_key, step=state.step)
    else:
      if collection == 'params':
        # The gradient of a kernel has the dtype of the products, to which autodiff would round it
        # before it is cast to float32: for all layers this takes half of the memory. XLA on CPUs
        # would convert a stack in bfloat16 element by element; there activations are in float32.
        blocks = cast_kernels(forward_params[BLOCKS], decoder.config.activation_dtype)
        forward_params = forward_params | {BLOCKS: blocks}
      grads, loss = _mean_gradients(loss_sums, config, decoder.config.embed_dim, forward_params,
                                    shardings.params, batch, dropout_key)
      grads = jax.tree.map(lambda grad: grad.astype(jnp.float32), grads)
    if masks is not None:
      grads = masked_gradients(grads, masks)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, grads=grads)
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grads),
               'tokens': jnp.count_nonzero(batch.segment_ids_RT)}
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1), metrics
  return jax.jit(train_step, donate_argnums=1, out_shardings=(shardings, None))


def _teacher(decoder: Decoder | None, variables: FrozenVariables | None, config: FinetuneConfig
             ) -> Teacher | None:
  """Returns the teacher that the objective depends on; None for none."""
  if decoder is None or variables is None or config.distillation is None:
    return None
  return Teacher(decoder, variables, config.distillation)


def _mean_gradients(
    loss_sums: SumsFn, config: FinetuneConfig, embed_dim: int, params: Any, shardings: Any,
    batch: PackedRows, dropout_key: jax.Array,
) -> tuple[Any, jax.Array]:
  """Returns the gradient of the batch's mean objective, and its mean cross-entropy."""
  # The sum is 0 for a batch that holds nothing but masked results.
  weight_sum = jnp.maximum(batch.loss_weights_RT.sum(), 1e-6)
  def loss_fn(params: Any, offsets_RTD: jax.Array | None, rows: PackedRows, key: jax.Array
              ) -> tuple[jax.Array, jax.Array]:
    """Returns the part of these rows in both means."""
    sums = loss_sums(params, rows, key, offsets_RTD)
    penalty = _penalty(params, config) / config.num_microbatches
    return sums.objective / weight_sum + penalty, sums.cross_entropy / weight_sum
  grad_fn = adversarial_grad(loss_fn, config.adversarial_epsilon, embed_dim)
  return _accumulate_grads(grad_fn, params, shardings, batch, dropout_key, config.num_microbatches)


def _penalty(params: Any, config: FinetuneConfig) -> jax.Array | float:
  """Returns what the objective has besides the loss of the tokens: AdaLoRA's penalty."""
  weight = config.adapter.orth_reg_weight if isinstance(config.adapter, AdaLoraConfig) else 0.0
  return weight * orthogonality_penalty(params) if weight else 0.0


def _accumulate_grads(
    grad_fn: GradFn, params: Any, shardings: Any, batch: PackedRows, key: jax.Array,
    num_microbatches: int,
) -> tuple[Any, jax.Array]:
  """Returns the sums of the gradients and of the loss over the microbatches of `batch`."""
  if num_microbatches == 1:
    return grad_fn(params, batch, key)
  def add(totals: tuple[Any, jax.Array], inputs: tuple[PackedRows, jax.Array]
          ) -> tuple[tuple[Any, jax.Array], None]:
    microbatch, number = inputs
    grads_and_loss = grad_fn(params, microbatch, jax.random.fold_in(key, number))
    return jax.tree.map(jnp.add, totals, grads_and_loss), None
  # Every microbatch has rows of all devices: row i of the batch is in microbatch i % number.
  microbatches = jax.tree.map(
      lambda x: x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
  zeros = jax.tree.map(lambda param: jnp.zeros(param.shape, jnp.float32), params)
  zeros = jax.lax.with_sharding_constraint(zeros, shardings)
  return jax.lax.scan(
      add, (zeros, jnp.float32(0)), (microbatches, jnp.arange(num_microbatches)))[0]
