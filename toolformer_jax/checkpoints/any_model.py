"""Models that are given by name, by path or as objects."""

import hashlib
import os
from collections.abc import Sequence

import jax
import numpy as np

from toolformer_jax.checkpoints.loading import ModelConfig, load_model
from toolformer_jax.checkpoints.pretrained import pretrained_config
from toolformer_jax.data.content_hash import content_fingerprint
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel

AnyModel = str | os.PathLike[str] | LanguageModel


def as_model(model: AnyModel, config: ModelConfig = ModelConfig(),
             devices: Sequence[jax.Device] | None = None) -> LanguageModel:
  """Returns `model`; if it is a name or a path, the checkpoint is loaded as `config` says.

  Its mesh has `devices`, by default all of this process.

  Raises:
    UserError: there is no such checkpoint.
  """
  if isinstance(model, LanguageModel):
    return model
  return load_model(model, config=config, devices=devices)


def decoder_config(model: AnyModel) -> DecoderConfig:
  """Returns the configuration of a model, which is not loaded if it is given by name.

  Raises:
    UserError: there is no such checkpoint.
  """
  return model.config if isinstance(model, LanguageModel) else pretrained_config(str(model))


def model_fingerprint(model: AnyModel) -> str:
  """Returns a hash of a model: of the files of its checkpoint, or of its weights if it has none.

  Raises:
    UserError: there is no such checkpoint.
  """
  if not isinstance(model, LanguageModel):
    return content_fingerprint(str(model))
  if model.source:
    return content_fingerprint(model.source)
  digest = hashlib.sha256(repr(model.config).encode())
  for array in jax.tree.leaves(model.variables):
    digest.update(np.asarray(array).tobytes())
  return digest.hexdigest()
