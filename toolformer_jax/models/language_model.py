"""A model ready for use: decoder, variables, tokenizer and the mesh they live on."""

import collections
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import sharding
from toolformer_jax.models.attention import kernel_for
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import BLOCKS, Decoder, block_name
from toolformer_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class LanguageModel:
  """A decoder with its variables ('params', and 'lora' where it has adapters) and tokenizer.

  Attributes:
    decoder, variables, tokenizer: what it consists of.
    mesh: the devices that hold it.
    source: the checkpoint that it was loaded from; '' for a model that was made in memory.
  """

  decoder: Decoder
  variables: dict[str, Any]
  tokenizer: Tokenizer
  mesh: Mesh
  source: str = ''

  def __repr__(self) -> str:
    count = sum(x.size for x in jax.tree.leaves(self.variables))
    devices = f'{self.mesh.size} {self.mesh.devices.flat[0].platform} device'
    return (f'LanguageModel({self.source or "unnamed"}, {count / 1e6:,.1f}M parameters, '
            f'{self.config.layers} layers, {self.config.dtype}, {devices}'
            f'{"s" * (self.mesh.size > 1)})')

  @property
  def config(self) -> DecoderConfig:
    """The decoder's configuration."""
    return self.decoder.config

  @classmethod
  def place(cls, config: DecoderConfig, variables: dict[str, Any], tokenizer: Tokenizer,
            mesh: Mesh) -> 'LanguageModel':
    """Puts `variables` (host or device arrays) on `mesh`, split as the rules say."""
    decoder = decoder_on(mesh, config)
    shardings = sharding.state_shardings(abstract_variables(decoder), mesh)
    wanted = {name: shardings[name] for name in variables}
    arrays, structure = jax.tree.flatten(variables)
    # Each host array is freed once it is placed: unless the caller keeps them, none exists twice.
    waiting = collections.deque(arrays)
    del arrays, variables
    placed = [jax.device_put(waiting.popleft(), where) for where in jax.tree.leaves(wanted)]
    return cls(decoder, jax.tree.unflatten(structure, placed), tokenizer, mesh)

  @property
  def on_one_cpu(self) -> bool:
    """Whether there is but one device, and that a CPU."""
    return self.mesh.size == 1 and self.mesh.devices.flat[0].platform == 'cpu'

  def for_inference(self) -> 'LanguageModel':
    """Returns the model with its weights in the dtype of the computation; it cannot be trained.

    Weights are cast once instead of at every use. No number changes; with bfloat16 half as many
    bytes are read, and half as many are needed once the float32 weights are freed. Norms are
    computed in float32 and keep their weights.
    """
    variables = cast_for_inference(self.variables, self.config)
    return dataclasses.replace(self, variables=jax.block_until_ready(variables))

  def with_unrolled_layers(self) -> 'LanguageModel':
    """Returns the same model, on one CPU, with a program that has no loop over layers.

    In a loop, XLA on a CPU copies the weights of every layer before it uses them, which takes
    longer than decoding one token. The new weights are views of the old ones, but for those whose
    layers are no multiples of 64 bytes, which are small.
    """
    device = self.mesh.devices.flat[0]
    def of_layer(x, layer):
      return jax.device_put(np.asarray(x)[layer], device, may_alias=True)
    variables = {}
    for name, tree in self.variables.items():
      variables[name] = {key: value for key, value in tree.items() if key != BLOCKS}
      for layer in range(self.config.layers):
        view = functools.partial(of_layer, layer=layer)
        variables[name][block_name(layer)] = jax.tree.map(view, tree[BLOCKS])
    return dataclasses.replace(self, decoder=self.decoder.clone(scan=False), variables=variables)

  def put_batch(self, array: np.ndarray) -> jax.Array:
    """Puts an input on the mesh, its first dimension split like a batch."""
    return jax.device_put(array, sharding.batch_sharding(self.mesh, array.shape))


def cast_for_inference(variables: dict[str, Any], config: DecoderConfig) -> dict[str, Any]:
  """Returns `variables` in the dtype that they are used in."""
  def cast(path, x):
    of_norm = any(str(key.key).endswith('norm') for key in path)
    return x if of_norm else x.astype(config.dtype)
  return jax.tree_util.tree_map_with_path(cast, variables)


def decoder_on(mesh: Mesh, config: DecoderConfig) -> Decoder:
  """Returns the decoder that computes best on the devices of `mesh`."""
  return Decoder(config, kernel=kernel_for(mesh, config))


def abstract_variables(decoder: Decoder) -> dict[str, Any]:
  """Returns the shapes, dtypes and axis names of the decoder's variables, without making them."""
  tokens_BT = jax.ShapeDtypeStruct((1, 2), np.int32)
  return jax.eval_shape(decoder.init, jax.random.key(0), tokens_BT)
