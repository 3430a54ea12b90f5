"""Adds low-rank adapters to a model that is about to be trained."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.training.config import FinetuneConfig


def add_adapters(model: LanguageModel, config: FinetuneConfig) -> LanguageModel:
  """Returns the model with the adapters that `config` asks for; adapters it has are kept.

  Raises:
    UserError: the model has adapters of another rank or scale.
  """
  rank, alpha = model.config.lora_rank, model.config.lora_alpha
  if rank:
    if (config.lora_rank, config.lora_alpha) != (rank, alpha):
      raise UserError(f'the model has adapters of rank {rank} and alpha {alpha}; fine-tune it '
                      'with the same lora_rank and lora_alpha')
    return model
  if not config.lora_rank:
    return model
  decoder = model.decoder.clone(config=model.config.replace(
      lora_rank=config.lora_rank, lora_alpha=config.lora_alpha))
  shardings = sharding.state_shardings(abstract_variables(decoder)['lora'], model.mesh)
  adapters = init_adapters(decoder, shardings, config.seed)
  return dataclasses.replace(
      model, decoder=decoder, variables={**model.variables, 'lora': adapters})


def init_adapters(decoder: Decoder, shardings: Any, seed: int) -> Any:
  """Returns new adapters, which do not change the output yet, with the given shardings."""
  def init() -> Any:
    variables = decoder.init(jax.random.key(seed), jnp.zeros((1, 2), jnp.int32))
    return sharding.unbox(variables['lora'])
  return jax.jit(init, out_shardings=shardings)()
