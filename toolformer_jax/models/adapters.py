"""What adapters compute. Their weights are the collection `adapter`, stacked by the scan.

There are three places: in a contraction (LoRA, AdaLoRA, IA3), on a residual branch (bottleneck),
and as a prefix of the cache (prefix tuning).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from toolformer_jax.models.adapter_config import (
  AdaLoraConfig,
  BottleneckConfig,
  Ia3Config,
  LoraStackConfig,
  LowRankConfig,
  PrefixConfig,
)
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.kv_cache import Prefix
from toolformer_jax.models.ops import einsum, weight_einsum
from toolformer_jax.models.remat import MATMUL_OUTPUT

ADAPTER = 'adapter'  # the collection of variables
ACTIVE = 'active'  # in it, with a stack: the number of the adapter that is used by default
_NORMAL = nn.initializers.normal(0.02)
_ACTIVATIONS = {'swish': nn.swish, 'relu': nn.relu, 'gelu': nn.gelu}

# Returns the variable `name` with an initializer, a shape, and the logical axes of its dimensions.
MakeVariable = Callable[[str, nn.initializers.Initializer, Sequence[int], Sequence[str | None]],
                        jax.Array]


def adapter_variable(module: nn.Module, name: str, init: nn.initializers.Initializer,
                     shape: Sequence[int], axes: Sequence[str | None]) -> jax.Array:
  """Returns a weight of the adapter that belongs to `module`, float32."""
  def make() -> Any:
    boxed = nn.with_logical_partitioning(init, tuple(axes))
    return boxed(module.make_rng('params'), tuple(shape), jnp.float32)
  return nn.unbox(module.variable(ADAPTER, name, make).value)


class Contraction(NamedTuple):
  """An einsum of an input with a kernel.

  Attributes:
    equation: such as 'btd,dnh->btnh'; its second operand is the kernel.
    shape: shape of the kernel.
    axes: logical axis of each dimension of the kernel.
  """

  equation: str
  shape: tuple[int, ...]
  axes: tuple[str | None, ...]

  @property
  def input_dims(self) -> list[int]:
    """The kernel's dimensions that are contracted with the input."""
    inputs, kernel = self.equation.split('->')[0].split(',')
    return [i for i, letter in enumerate(kernel) if letter in inputs]

  @property
  def output_dims(self) -> list[int]:
    """The kernel's other dimensions."""
    return [i for i in range(len(self.shape)) if i not in self.input_dims]

  def sizes(self, dims: Sequence[int]) -> tuple[list[int], list[str | None]]:
    """Returns sizes and logical axes of dimensions of the kernel."""
    return [self.shape[i] for i in dims], [self.axes[i] for i in dims]


def low_rank(adapter: LowRankConfig, module: str, contraction: Contraction,
             variable: MakeVariable, x: jax.Array, config: DecoderConfig,
             adapter_ids_BT: jax.Array | None = None) -> jax.Array:
  """Returns what a low-rank adapter adds to a module's output; zero before training.

  Args:
    adapter: LoRA, whose B is zero before training, or AdaLoRA, whose E is; or a stack.
    module: name of the module.
    contraction: what the module computes.
    variable: makes the weights.
    x: the module's input.
    config: of the decoder.
    adapter_ids_BT: the number of each token's adapter; needed for a stack alone.
  """
  rank, is_adalora = adapter.rank_of(module), isinstance(adapter, AdaLoraConfig)
  (inputs, in_axes), (outputs, out_axes) = map(
      contraction.sizes, (contraction.input_dims, contraction.output_dims))
  a = variable('a', _NORMAL, [*inputs, rank], [*in_axes, None])
  b = variable('b', _NORMAL if is_adalora else nn.initializers.zeros, [rank, *outputs],
               [None, *out_axes])
  terms, out = contraction.equation.split('->')
  rows, kernel = terms.split(',')
  contracted = ''.join(kernel[i] for i in contraction.input_dims)
  free = ''.join(kernel[i] for i in contraction.output_dims)
  kept = ''.join(letter for letter in rows if letter not in contracted)
  low = checkpoint_name(
      weight_einsum(f'{rows},{contracted}r->{kept}r', config, x, a), MATMUL_OUTPUT)
  if is_adalora:
    low = low * variable('e', nn.initializers.zeros, [rank], [None]).astype(low.dtype)
  if isinstance(adapter, LoraStackConfig):
    assert adapter_ids_BT is not None  # or all adapters would be added up
    own_BTr = adapter_ids_BT[..., None] == jnp.array(adapter.numbers_of(module))
    low = jnp.where(own_BTr, low, 0)
  dtype = config.product_dtype
  y = einsum(f'{kept}r,r{free}->{out}', 'float32', low.astype(dtype), b.astype(dtype),
             None if dtype == config.activation_dtype else dtype)
  return (adapter.scale_of(module) * y).astype(x.dtype)


def adapter_numbers(module: nn.Module, adapter_ids_BT: jax.Array | None, B: int, T: int
                    ) -> jax.Array:
  """Returns the number of each token's adapter of a stack, [B, T]; by default the active one."""
  active = module.variable(ADAPTER, ACTIVE, lambda: jnp.zeros((), jnp.int32)).value
  return jnp.broadcast_to(active, (B, T)) if adapter_ids_BT is None else adapter_ids_BT


def ia3_scale(adapter: Ia3Config, module: str, contraction: Contraction,
              variable: MakeVariable) -> jax.Array:
  """Returns what the module's input or output is multiplied by; ones before training."""
  feedforward = module in adapter.feedforward_modules
  dims = contraction.input_dims if feedforward else contraction.output_dims
  return variable('scale', nn.initializers.ones, *contraction.sizes(dims))


class Bottleneck(nn.Module):
  """A bottleneck adapter; its output is zero before training."""

  config: DecoderConfig
  adapter: BottleneckConfig

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    D, dtype = self.config.embed_dim, self.config.activation_dtype
    size = self.adapter.size(D)
    def weight(name: str, init: nn.initializers.Initializer, *axes: tuple[int, str | None]
               ) -> jax.Array:
      shape, names = zip(*axes, strict=True)
      return adapter_variable(self, name, init, shape, names).astype(dtype)
    zeros = nn.initializers.zeros
    down = einsum('btd,dr->btr', dtype, x_BTD.astype(dtype),
                  weight('down', _NORMAL, (D, 'embed'), (size, None)))
    down = checkpoint_name(down, MATMUL_OUTPUT) + weight('down_bias', zeros, (size, None))
    hidden = _ACTIVATIONS[self.adapter.activation](down)
    up = einsum('btr,rd->btd', dtype, hidden, weight('up', zeros, (size, None), (D, 'embed')))
    return checkpoint_name(up, MATMUL_OUTPUT) + weight('up_bias', zeros, (D, None))


def tuned_prefix(module: nn.Module, config: DecoderConfig, adapter: PrefixConfig, rows: int
                 ) -> Prefix:
  """Returns the learned keys and values as a prefix that all `rows` of a batch share."""
  L, K, H, S = config.layers, config.kv_heads, config.head_dim, adapter.num_virtual_tokens
  k_LPKHS = adapter_variable(module, 'prefix_keys', _NORMAL, (L, 1, K, H, S),
                             (None, None, 'kv_heads', None, None)).astype(config.activation_dtype)
  v_LPKSH = adapter_variable(module, 'prefix_values', _NORMAL, (L, 1, K, S, H),
                             (None, None, 'kv_heads', None, None)).astype(config.activation_dtype)
  return Prefix(k_LPKHS, v_LPKSH, jnp.full(rows, S, jnp.int32))
