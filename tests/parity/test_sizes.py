"""The models of `models.presets` as transformers has them, in full size and without weights."""

import functools
import math

import jax
import pytest
import torch
import transformers

from toolformer_jax import sharding
from toolformer_jax.checkpoints.families.registry import family_of, read_config, write_config
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import abstract_variables
from toolformer_jax.models.presets import PRESETS


def on_meta(config):
  """Returns names and shapes of transformers' model of the same configuration."""
  fields = write_config(config)
  kind = transformers.AutoConfig.for_model(fields.pop('model_type'), **fields)
  with torch.device('meta'):
    model = transformers.AutoModelForCausalLM.from_config(kind)
  return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize('name', PRESETS)
def test_names_and_shapes_of_an_import(name):
  config = PRESETS[name]
  table = family_of(config).weights(config)
  ours = {tensor: weight.shape for weight in table
          for tensor in weight.tensor_names(config.layers)}
  assert ours == on_meta(config)
  params = abstract_variables(Decoder(config))['params']
  leaves = sharding.unbox(params)
  assert len(jax.tree.leaves(leaves)) == len(table)
  for weight in table:
    shape = functools.reduce(dict.__getitem__, weight.path, leaves).shape
    size = math.prod(weight.shape) * (config.layers if weight.of_block else 1)
    assert math.prod(shape) == (size // weight.split[weight.part[0]] if weight.part else size)


@pytest.mark.parametrize('name', PRESETS)
def test_a_configuration_written_is_read_again(name):
  config = PRESETS[name]
  assert read_config(write_config(config), name) == (family_of(config), config)


@pytest.mark.parametrize(('shape', 'share'), [((1, 8, 1), 8), ((1, 4, 2), 8), ((1, 1, 8), 8),
                                              ((8, 1, 1), 1)])
def test_gptj_lies_evenly_on_a_mesh(shape, share):
  """Of 6.05 billion parameters every device has its part, but for norms and biases."""
  params = abstract_variables(Decoder(PRESETS['gptj_6b']))['params']
  placed = jax.tree.leaves(sharding.abstract_with_sharding(params, sharding.make_mesh(*shape)))
  here = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in placed)
  whole = sum(leaf.size for leaf in placed)
  assert whole / share <= here < 1.001 * whole / share
