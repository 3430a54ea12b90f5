"""The language-model loss of packed rows, computed without holding all logits at once."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from toolformer_jax import sharding
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder, apply_lm_head, lm_head_params
from toolformer_jax.models.ops import target_logits
from toolformer_jax.training.packing import PackedRows
from toolformer_jax.training.recovery.distillation import Teacher, distilled_objective


class LossSums(NamedTuple):
  """Weighted sums over the targets of some rows; float32 scalars.

  They are sums and not means, because the mean over several batches is a quotient of sums.

  Attributes:
    objective: what training minimizes: cross-entropy, of smoothed targets if so asked, plus z-loss,
      the weighted square of the log-partition function (PaLM, Chowdhery et al. 2022); and a
      teacher's share. The only field with a gradient.
    cross_entropy: in nats.
    weight_sum: of the loss weights.
  """

  objective: jax.Array
  cross_entropy: jax.Array
  weight_sum: jax.Array


class SumsFn(Protocol):
  """Returns the sums of the loss of rows, as a function of the parameters that are trained."""

  def __call__(self, params: Any, rows: PackedRows, dropout_key: jax.Array,
               offsets_RTD: jax.Array | None = None, /) -> LossSums:
    """Returns the sums; `offsets_RTD` is added to the embeddings."""
    ...


class Targets(NamedTuple):
  """What the loss of hidden states [R, T, D] depends on besides the projection to the vocabulary.

  Attributes:
    tokens_RT: the target of each token.
    loss_weights_RT: the weight of its loss.
    teacher_RTE: the teacher's hidden states; None without a teacher.
  """

  tokens_RT: jax.Array
  loss_weights_RT: jax.Array
  teacher_RTE: jax.Array | None


# Of the projection to the vocabulary, hidden states, their targets, and the teacher's projection.
ChunkLoss = Callable[[Any, jax.Array, Targets, Any], LossSums]


def next_token_loss(
    decoder: Decoder, variables: dict[str, Any], rows: PackedRows, *,
    loss_tokens: int = 1024, z_loss: float = 0.0, label_smoothing: float = 0.0,
    teacher: Teacher | None = None, dropout_key: jax.Array | None = None,
    embedding_offsets_RTD: jax.Array | None = None,
) -> LossSums:
  """Returns the weighted sums of the loss of `rows`.

  Logits take most of the memory of a small model. Here they exist for one chunk of the rows at a
  time, and are computed only once: the forward pass computes their gradients as well.

  Args:
    decoder, variables: the model.
    rows: R rows of T tokens.
    loss_tokens: number of tokens whose logits a device holds at a time.
    z_loss: coefficient of the z-loss.
    label_smoothing: share of the objective in which all tokens are the target alike.
    teacher: a model whose distribution is learned. Its logits, too, exist for one chunk at a time.
    dropout_key: turns the decoder's dropout on.
    embedding_offsets_RTD: added to the embeddings, but not to the teacher's.
  """
  hidden_RTD, _ = decoder.apply(
      variables, rows.input_tokens_RT, positions_BT=rows.positions_RT,
      segment_ids_BT=rows.segment_ids_RT, embedding_offsets_BTD=embedding_offsets_RTD,
      return_hidden=True,
      rngs=None if dropout_key is None else {'dropout': dropout_key})
  teacher_RTE = teacher_head = distill = None
  if teacher is not None:
    teacher_RTE, _ = teacher.decoder.apply(
        teacher.variables, rows.input_tokens_RT, positions_BT=rows.positions_RT,
        segment_ids_BT=rows.segment_ids_RT, return_hidden=True)
    teacher_head = lm_head_params(teacher.decoder.config, teacher.variables['params'])
    distill = functools.partial(distilled_objective, teacher.config, teacher.decoder.config)
  chunk_loss = functools.partial(_chunk_loss, decoder.config, z_loss, label_smoothing, distill)
  num_chunks = _num_chunks(rows.input_tokens_RT.shape, loss_tokens)
  head = lm_head_params(decoder.config, variables['params'])
  targets = Targets(jnp.asarray(rows.target_tokens_RT), jnp.asarray(rows.loss_weights_RT),
                    teacher_RTE)
  sums = _chunked_loss(chunk_loss, num_chunks, head, hidden_RTD, targets, teacher_head)
  return jax.lax.stop_gradient(sums)._replace(objective=sums.objective)


def _chunk_loss(
    config: DecoderConfig, z_loss: float, label_smoothing: float,
    distill: Callable[..., jax.Array] | None, head: Any, hidden_RTD: jax.Array, targets: Targets,
    teacher_head: Any) -> LossSums:
  """Returns the sums of one chunk, whose logits exist all at once."""
  logits_RTV = apply_lm_head(config, head, hidden_RTD).astype(jnp.float32)
  log_z_RT = jax.nn.logsumexp(logits_RTV, -1)
  cross_entropy_RT = log_z_RT - target_logits(logits_RTV, targets.tokens_RT)
  objective_RT = cross_entropy_RT + z_loss * log_z_RT**2
  if label_smoothing:
    uniform_RT = log_z_RT - logits_RTV.mean(-1)  # cross-entropy if all tokens are equally right
    objective_RT += label_smoothing * (uniform_RT - cross_entropy_RT)
  if distill is not None:
    objective_RT = distill(objective_RT, logits_RTV, teacher_head, targets.teacher_RTE)
  weights_RT = targets.loss_weights_RT
  return LossSums((objective_RT * weights_RT).sum(), (cross_entropy_RT * weights_RT).sum(),
                  weights_RT.sum())


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chunked_loss(chunk_loss: ChunkLoss, num_chunks: int, head: Any, hidden_RTD: jax.Array,
                  targets: Targets, teacher_head: Any) -> LossSums:
  """Returns the total of `chunk_loss` over `num_chunks` chunks."""
  def add(totals: LossSums, chunk: tuple[jax.Array, Targets]) -> tuple[LossSums, None]:
    return jax.tree.map(jnp.add, totals, chunk_loss(head, *chunk, teacher_head)), None
  chunks = _chunks((hidden_RTD, targets), num_chunks)
  return jax.lax.scan(add, LossSums(*jnp.zeros(3, jnp.float32)), chunks)[0]


def _chunked_loss_forward(chunk_loss: ChunkLoss, num_chunks: int, head: Any, hidden_RTD: Any,
                          targets: Any, teacher_head: Any
                          ) -> tuple[LossSums, tuple[list[Any], jax.Array]]:
  """Returns the sums, and the gradients of the objective for the head, if trained, and hidden_RTD.

  With symbolic zeros, each argument has a `value` and says whether it is `perturbed`.
  """
  # The head may be frozen; hidden states depend on every trained parameter.
  argnums = (0, 1) if any(leaf.perturbed for leaf in jax.tree.leaves(head)) else (1,)
  head, hidden_RTD, targets, teacher_head = jax.tree.map(
      lambda leaf: leaf.value, (head, hidden_RTD, targets, teacher_head))
  def objective(head: Any, hidden_RTD: jax.Array, targets: Targets
                ) -> tuple[jax.Array, LossSums]:
    sums = chunk_loss(head, hidden_RTD, targets, teacher_head)
    return sums.objective, sums
  def add(totals: tuple[LossSums, list[Any]], chunk: tuple[jax.Array, Targets]
          ) -> tuple[tuple[LossSums, list[Any]], jax.Array]:
    (*head_grads, hidden_grad_RTD), sums = jax.grad(objective, argnums, has_aux=True)(head, *chunk)
    return jax.tree.map(jnp.add, totals, (sums, head_grads)), hidden_grad_RTD
  zeros = (LossSums(*jnp.zeros(3, jnp.float32)),
           [jax.tree.map(jnp.zeros_like, head)] if 0 in argnums else [])
  (sums, head_grads), hidden_grads_CRTD = jax.lax.scan(
      add, zeros, _chunks((hidden_RTD, targets), num_chunks))
  return sums, (head_grads, _join(hidden_grads_CRTD, hidden_RTD.shape[1]))


def _chunked_loss_backward(chunk_loss: ChunkLoss, num_chunks: int,
                           grads: tuple[list[Any], jax.Array], cotangents: LossSums
                           ) -> tuple[Any, jax.Array, None, None]:
  """Returns the gradients that the forward pass computed, times the objective's cotangent."""
  head_grads, hidden_grad_RTD = jax.tree.map(
      lambda grad: (cotangents.objective * grad).astype(grad.dtype), grads)
  return (head_grads[0] if head_grads else None), hidden_grad_RTD, None, None


_chunked_loss.defvjp(_chunked_loss_forward, _chunked_loss_backward, symbolic_zeros=True)


def _num_chunks(shape: tuple[int, int], loss_tokens: int) -> int:
  """Returns the number of chunks of rows [R, T]; they divide T, so that all devices have work."""
  R, T = shape
  return -(-T // max(1, min(T, loss_tokens // sharding.rows_per_device(R))))


def _chunks(tree: Any, num_chunks: int) -> Any:
  """Returns a tree of arrays [R, T, ...] with the arrays that `_split` makes of them."""
  return jax.tree.map(lambda x_RT: _split(x_RT, num_chunks), tree)


def _split(x_RT: jax.Array, num_chunks: int) -> jax.Array:
  """Splits [R, T, ...] along T into C chunks, padded with zeros: [C, R, ceil(T / C), ...]."""
  R, T = x_RT.shape[:2]
  size = -(-T // num_chunks)
  padded = jnp.pad(x_RT, [(0, 0), (0, size * num_chunks - T)] + [(0, 0)] * (x_RT.ndim - 2))
  return padded.reshape(R, num_chunks, size, *x_RT.shape[2:]).swapaxes(0, 1)


def _join(x_CRT: jax.Array, tokens: int) -> jax.Array:
  """Returns [R, T, ...] from the chunks [C, R, ceil(T / C), ...] that `_split` made."""
  C, R, size = x_CRT.shape[:3]
  return x_CRT.swapaxes(0, 1).reshape(R, C * size, *x_CRT.shape[3:])[:, :tokens]
