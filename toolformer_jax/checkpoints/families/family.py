"""What a model family is: how its config.json and its tensors are converted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolformer_jax.checkpoints.families.config_fields import ConfigFields
from toolformer_jax.checkpoints.families.weights import Weight
from toolformer_jax.models.config import DecoderConfig


@dataclass(frozen=True)
class Family:
  """A family of models in transformers.

  Attributes:
    model_type: `model_type` in config.json.
    architecture: the class in transformers.
    read_config: returns the configuration that the fields of a config.json describe. It takes every
      field that changes the logits, and raises UserError for a value that is not supported.
    write_config: returns the fields of a config.json that are specific to the family.
    weights: returns the tensors of a checkpoint and the parameters that they hold.
    is_family_of: whether a configuration is exported as this family.
  """

  model_type: str
  architecture: str
  read_config: Callable[[ConfigFields], DecoderConfig]
  write_config: Callable[[DecoderConfig], dict[str, Any]]
  weights: Callable[[DecoderConfig], list[Weight]]
  is_family_of: Callable[[DecoderConfig], bool]
