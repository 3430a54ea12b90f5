"""Adds an adapter to a model that is about to be trained."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.training.config import FinetuneConfig


def adapted_config(config: FinetuneConfig, model: DecoderConfig) -> DecoderConfig:
  """Returns the configuration of a model with the adapter that `config` asks for.

  Raises:
    UserError: the model has another adapter, or lacks a module that `config` names.
  """
  has, wanted = model.adapter, config.adapter
  if has and wanted != has:
    raise UserError(f'the model has the adapter {has}; fine-tune it with the same '
                    f'FinetuneConfig.adapter, not {wanted}')
  return model.replace(adapter=wanted)


def add_adapter(model: LanguageModel, config: FinetuneConfig) -> LanguageModel:
  """Returns the model with the adapter that `config` asks for; one that it has is kept.

  Raises:
    UserError: the model has another adapter, or lacks a module that `config` names.
  """
  wanted = adapted_config(config, model.config)
  if wanted == model.config:
    return model
  decoder = model.decoder.clone(config=wanted)
  shardings = sharding.state_shardings(abstract_variables(decoder)[ADAPTER], model.mesh)
  adapter = init_adapter(decoder, shardings, config.seed)
  return dataclasses.replace(
      model, decoder=decoder, variables={**model.variables, ADAPTER: adapter})


def init_adapter(decoder: Decoder, shardings: Any, seed: int) -> Any:
  """Returns the weights of a new adapter, with the given shardings.

  All but a prefix do not change the output yet.
  """
  def init() -> Any:
    variables = decoder.init(jax.random.key(seed), jnp.zeros((1, 2), jnp.int32))
    return sharding.unbox(variables[ADAPTER])
  return jax.jit(init, out_shardings=shardings)()
