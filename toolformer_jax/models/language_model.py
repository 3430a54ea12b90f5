"""A decoder with its variables and tokenizer, on a mesh."""

import collections
import copy
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.models.attention import choose_kernel
from toolformer_jax.models.bfloat16 import as_bits, choose_parts, from_bits, is_bits
from toolformer_jax.models.config import INTEGER_DTYPES, DecoderConfig, Dtype, check_is_float_dtype
from toolformer_jax.models.decoder import BLOCKS, Decoder, block_name
from toolformer_jax.models.int4 import round_kernel
from toolformer_jax.models.int8 import KERNEL_SCALE
from toolformer_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class LanguageModel:
  """A decoder with its variables and tokenizer, on a mesh.

  Attributes:
    decoder: the Flax module.
    variables: its arrays by collection: 'params', and 'adapter' if it has an adapter.
    tokenizer: between texts and token ids.
    mesh: the devices that hold the variables.
    source: the checkpoint that the model was loaded from; '' for one that was made in memory.
  """

  decoder: Decoder
  variables: dict[str, Any]
  tokenizer: Tokenizer
  mesh: Mesh
  source: str = ''

  def __repr__(self) -> str:
    count = sum(x.size * (2 if x.dtype == jnp.uint8 else 1)  # two codes in a byte
                for x in jax.tree.leaves(self.variables))
    devices = f'{self.mesh.size} {self.mesh.devices.flat[0].platform} device'
    return (f'LanguageModel({self.source or "unnamed"}, {count / 1e6:,.1f}M parameters, '
            f'{self.config.layers} layers, {self.config.dtype}, {devices}'
            f'{"s" * (self.mesh.size > 1)})')

  @property
  def config(self) -> DecoderConfig:
    """The decoder's configuration."""
    return self.decoder.config

  @classmethod
  def from_variables(cls, config: DecoderConfig, variables: dict[str, Any], tokenizer: Tokenizer,
                     mesh: Mesh) -> 'LanguageModel':
    """Returns a model whose `variables` (arrays of host or device) are sharded over `mesh`."""
    decoder = make_decoder(mesh, config)
    shardings = sharding.state_shardings(abstract_variables(decoder), mesh)
    shardings = jax.tree.leaves({name: shardings[name] for name in variables})
    arrays, structure = jax.tree.flatten(variables)
    # Each host array is freed once it is on the devices: unless the caller keeps it, none exists
    # twice.
    host_arrays = collections.deque(arrays)
    del arrays, variables
    arrays = [jax.device_put(host_arrays.popleft(), where) for where in shardings]
    return cls(decoder, jax.tree.unflatten(structure, arrays), tokenizer, mesh)

  def without_start_token(self) -> 'LanguageModel':
    """Returns the same model, which puts no start token before texts."""
    tokenizer = copy.copy(self.tokenizer)
    tokenizer.start_id = None
    return dataclasses.replace(self, tokenizer=tokenizer)

  @property
  def on_one_cpu(self) -> bool:
    """Whether the mesh is a single CPU device."""
    return self.mesh.size == 1 and self.mesh.devices.flat[0].platform == 'cpu'

  def for_inference(self) -> 'LanguageModel':
    """Returns the model with its weights in the dtype of the computation; it cannot be trained.

    Weights are cast once instead of at every use, and all results stay the same. In bfloat16 half
    as many bytes are read, and half the memory is needed once the float32 weights are freed. Norms,
    and whatever else is computed in float32, keep float32 weights. On a CPU that multiplies in
    bfloat16, the layers are stored as `bfloat16.as_bits`, and cannot be exported or changed either.
    """
    variables = cast_for_inference(self.variables, self.config)
    return dataclasses.replace(self, variables=jax.block_until_ready(variables))

  def to_dtype(self, dtype: Dtype) -> 'LanguageModel':
    """Returns the model with computation and weights in `dtype`, for inference.

    In 'int8' and 'int4' the weights of matrix products are rounded. Embeddings, norms and adapters
    are then shared with this model.

    Raises:
      UserError: the weights are rounded already, or bits of bfloat16.
    """
    self.check_is_float(f'converted to {dtype}')
    decoder = make_decoder(self.mesh, self.config.replace(dtype=dtype))
    if dtype not in INTEGER_DTYPES:
      return dataclasses.replace(self, decoder=decoder).for_inference()
    abstract = sharding.abstract_with_sharding(abstract_variables(decoder)['params'], self.mesh)
    params = _with_codes(self.variables['params'], abstract)
    return dataclasses.replace(self, decoder=decoder, variables=self.variables | {'params': params})

  def check_is_float(self, purpose: str) -> None:
    """Checks that the weights are floating-point numbers.

    Args:
      purpose: what cannot be done with such a model, such as 'trained'.

    Raises:
      UserError: they are rounded to int8 or int4, or bits of bfloat16.
    """
    check_is_float_dtype(self.config.dtype, purpose)
    if any(is_bits(x) for x in jax.tree.leaves(self.variables)):
      raise UserError(f'a model that was made for inference in bfloat16 cannot be {purpose}; take '
                      'the one that load_model returned')

  def with_unrolled_layers(self) -> 'LanguageModel':
    """Returns the same model with unrolled layers instead of a loop over them; for a single CPU.

    In a loop, XLA on a CPU copies each layer's weights before it uses them, which takes longer than
    decoding a token. The new weights are views of the old ones. Only those with a layer size that
    is no multiple of 64 bytes are copied, and they are small.
    """
    device = self.mesh.devices.flat[0]
    def view_of_layer(x: jax.Array, layer: int) -> jax.Array:
      return jax.device_put(from_bits(np.asarray(x)[layer]), device, may_alias=True)
    variables = {}
    for name, tree in self.variables.items():
      variables[name] = {key: value for key, value in tree.items() if key != BLOCKS}
      for layer in range(self.config.layers):
        view = functools.partial(view_of_layer, layer=layer)
        if BLOCKS in tree:
          variables[name][block_name(layer)] = jax.tree.map(view, tree[BLOCKS])
    decoder = self.decoder.clone(scan_layers=False)
    return dataclasses.replace(self, decoder=decoder, variables=variables)

  def put_batch(self, batch: Any) -> Any:
    """Puts an array, or a tree of arrays, on the mesh; first dimensions are sharded as the batch.

    One call for a tree takes less time than one for each of its arrays.
    """
    shardings = jax.tree.map(lambda x: sharding.batch_sharding(self.mesh, x.shape), batch)
    return jax.device_put(batch, shardings)


def _with_codes(params: dict[str, Any], abstract: dict[str, Any], stacked: bool = False
                ) -> dict[str, Any]:
  """Returns `params` with the kernels that are integers in `abstract` as codes and scales.

  Args:
    params: parameters in float32.
    abstract: those of a model in int8 or int4, as shapes, dtypes and shardings.
    stacked: whether they have an axis of layers.
  """
  result = {}
  for name, value in params.items():
    wanted = abstract[name]
    if isinstance(value, dict):
      result[name] = _with_codes(value, wanted, stacked or name == BLOCKS)
    elif jnp.issubdtype(wanted.dtype, jnp.integer):
      scales, kernel = abstract[KERNEL_SCALE], np.asarray(value, np.float32)
      if stacked:
        pairs = [round_kernel(one, wanted.dtype, scales.ndim - 1) for one in kernel]
        parts = [np.stack(part) for part in zip(*pairs, strict=True)]
      else:
        parts = [*round_kernel(kernel, wanted.dtype, scales.ndim)]
      result[name] = jax.device_put(parts[0], wanted.sharding)
      result[KERNEL_SCALE] = jax.device_put(parts[1], scales.sharding)
    else:
      result[name] = value
  return result


def cast_for_inference(variables: dict[str, Any], config: DecoderConfig) -> dict[str, Any]:
  """Returns `variables` in the dtypes of the computation: norms in float32, factors of products in
  the dtype of products; those of stacked layers as bits if only products are in bfloat16."""
  in_bits = config.product_dtype != config.activation_dtype  # in bfloat16 on CPUs
  def cast(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
    names = [str(key.key) for key in path]
    is_integer = jnp.issubdtype(x.dtype, jnp.integer)  # codes of weights, numbers of adapters
    if is_integer or names[-1] == KERNEL_SCALE or any(name.endswith('norm') for name in names):
      return x
    if names[-1] not in ('kernel', 'embedding'):
      return x.astype(config.activation_dtype)
    x = x.astype(config.product_dtype)
    return as_bits(x) if BLOCKS in names and in_bits else x
  return jax.tree_util.tree_map_with_path(cast, variables)


def make_decoder(mesh: Mesh, config: DecoderConfig) -> Decoder:
  """Returns a decoder with what is fast on the devices of `mesh`: the kernel of attention, and the
  parts in bfloat16."""
  if config.dtype == 'bfloat16':
    config = config.replace(bfloat16_parts=choose_parts(mesh))
  return Decoder(config, kernel=choose_kernel(mesh, config))


def abstract_variables(decoder: Decoder) -> dict[str, Any]:
  """Returns shapes, dtypes and logical axes of the decoder's variables, without allocating any."""
  tokens_BT = jax.ShapeDtypeStruct((1, 2), np.int32)
  return jax.eval_shape(decoder.init, jax.random.key(0), tokens_BT)
