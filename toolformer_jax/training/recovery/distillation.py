"""Distillation: the model learns the distribution of a teacher (Hinton et al. 2015)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder, apply_lm_head
from toolformer_jax.training.recovery.config import DistillationConfig


class Teacher(NamedTuple):
  """A model that another one learns from; it is not trained.

  Attributes:
    decoder, variables: the model.
    config: how much the other one learns from it.
  """

  decoder: Decoder
  variables: dict[str, Any]
  config: DistillationConfig


def distilled_objective(
    config: DistillationConfig, teacher: DecoderConfig, objective_RT: jax.Array,
    logits_RTV: jax.Array, head: Any, hidden_RTD: jax.Array) -> jax.Array:
  """Returns the objective of each token with the teacher's share in it, [R, T].

  Args:
    config: how large this share is.
    teacher: configuration of the teacher.
    objective_RT: the objective without a teacher.
    logits_RTV: of the model that learns, float32.
    head: from `lm_head_params` of the teacher.
    hidden_RTD: the teacher's hidden states of the same tokens.
  """
  teacher_logits_RTV = apply_lm_head(teacher, head, hidden_RTD).astype(jnp.float32)
  loss_RT = distillation_loss(logits_RTV, teacher_logits_RTV, config.temperature)
  return objective_RT + config.weight * (loss_RT - objective_RT)


def distillation_loss(logits_RTV: jax.Array, teacher_logits_RTV: jax.Array, temperature: float
                      ) -> jax.Array:
  """Returns temperature^2 * KL(teacher || model) of each token in nats, [R, T].

  The factor keeps the size of the gradients, which are divided by the square of the temperature.
  """
  log_q_RTV = jax.nn.log_softmax(logits_RTV / temperature)
  log_p_RTV = jax.nn.log_softmax(teacher_logits_RTV / temperature)
  return temperature**2 * (jnp.exp(log_p_RTV) * (log_p_RTV - log_q_RTV)).sum(-1)


def check_teacher(teacher: DecoderConfig, student: DecoderConfig, row_tokens: int) -> None:
  """Checks that a model can learn from a teacher.

  Args:
    teacher, student: their configurations.
    row_tokens: tokens of a row.

  Raises:
    UserError: their vocabularies have different sizes, or rows are too long for the teacher.
  """
  if teacher.vocab_size != student.vocab_size:
    raise UserError(f'the teacher has a vocabulary of {teacher.vocab_size} tokens, and the model '
                    f'one of {student.vocab_size}; take a teacher with the same tokenizer')
  if row_tokens > teacher.max_tokens:
    raise UserError(f'FinetuneConfig.row_tokens is {row_tokens}, but the teacher has only '
                    f'{teacher.max_tokens} positions')
