"""A model ready for use: decoder, variables, tokenizer and the mesh they live on."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import sharding
from toolformer_jax.models.attention import kernel_for
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class LanguageModel:
  """A decoder with its variables ('params', and 'lora' where it has adapters) and tokenizer."""

  decoder: Decoder
  variables: dict[str, Any]
  tokenizer: Tokenizer
  mesh: Mesh

  @property
  def config(self) -> DecoderConfig:
    """The decoder's configuration."""
    return self.decoder.config

  @classmethod
  def place(cls, config: DecoderConfig, variables: dict[str, Any], tokenizer: Tokenizer,
            mesh: Mesh) -> 'LanguageModel':
    """Puts `variables` (host or device arrays) on `mesh`, split as the rules say."""
    decoder = Decoder(config, kernel=kernel_for(mesh, config))
    shardings = sharding.state_shardings(abstract_variables(decoder), mesh)
    placed = {name: jax.device_put(variables[name], shardings[name]) for name in variables}
    return cls(decoder, placed, tokenizer, mesh)

  def put_batch(self, array: np.ndarray) -> jax.Array:
    """Puts an input on the mesh, its first dimension split like a batch."""
    return jax.device_put(array, sharding.batch_sharding(self.mesh, array.shape))


def abstract_variables(decoder: Decoder) -> dict[str, Any]:
  """Returns the shapes, dtypes and axis names of the decoder's variables, without making them."""
  tokens_BT = jax.ShapeDtypeStruct((1, 2), np.int32)
  return jax.eval_shape(decoder.init, jax.random.key(0), tokens_BT)
