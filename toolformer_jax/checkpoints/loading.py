"""The public function `load_model`, and its settings. Importing this module does not load JAX."""

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolformer_jax.checkpoints.names import check_adapter
from toolformer_jax.data.local_cache import cache_directory
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import Dtype, check_is_float_dtype
from toolformer_jax.runtime.validation import check

if TYPE_CHECKING:
  from collections.abc import Mapping, Sequence

  import jax

  from toolformer_jax.models.language_model import LanguageModel


@dataclass(frozen=True)
class ModelConfig:
  """Dtype and mesh of a model.

  Attributes:
    dtype: dtype of the computation, 'float32' or 'bfloat16'. Parameters are trained in float32.
      With 'int8', weights are rounded once, as the model is loaded, and products are those of
      integers. With 'int4', weights are rounded to 4 bits, unless they are stored so, and stay
      packed in memory. Both are for inference only.
    data, fsdp, tensor: sizes of the mesh axes; -1 for all remaining devices.
  """

  dtype: Dtype = 'float32'
  data: int = 1
  fsdp: int = -1
  tensor: int = 1

  def __post_init__(self) -> None:
    check(self, data=(-1, 10**6), fsdp=(-1, 10**6), tensor=(-1, 10**6))
    if 0 in (self.data, self.fsdp, self.tensor):
      raise UserError('ModelConfig: no axis of the mesh can have size 0')

  def check_is_float(self, purpose: str) -> None:
    """Raises UserError if weights are rounded as they are loaded; see `check_is_float_dtype`."""
    check_is_float_dtype(self.dtype, purpose)

  def make_mesh(self, devices: 'Sequence[jax.Device] | None' = None) -> 'jax.sharding.Mesh':
    """Returns the mesh of `devices`, by default of all devices of this process.

    Raises:
      UserError: its sizes do not fit them.
    """
    from toolformer_jax import sharding
    try:
      return sharding.make_mesh(self.data, self.fsdp, self.tensor, devices)
    except ValueError as error:
      raise UserError(f'ModelConfig: {error}') from error


def load_model(checkpoint: str | os.PathLike[str], *, config: ModelConfig = ModelConfig(),
               devices: 'Sequence[jax.Device] | None' = None,
               adapter: str | os.PathLike[str] | None = None,
               adapters: 'Mapping[str, str | os.PathLike[str]] | None' = None) -> 'LanguageModel':
  """Loads a model.

  Also turns on JAX's persistent compilation cache, so that the next process starts faster. One
  that is on already is kept.

  Args:
    checkpoint: a name such as 'smollm2-135m', `hf://org/name[@revision]`, a .gguf file, a Hugging
      Face directory, or an output directory of `finetune`.
    config: dtype and mesh.
    devices: devices of the mesh; by default all devices of this process.
    adapter: a directory of PEFT or AdapterHub with an adapter for the checkpoint.
    adapters: several of them with low ranks, by names of your choice. Each text of `generate` names
      its own; `with_adapter` chooses one for all that follows.

  Raises:
    UserError: there is no such checkpoint, the mesh does not fit the devices, or an adapter does
      not fit the checkpoint or cannot be used beside others.
  """
  # Imported here, because modules that need only ModelConfig should not wait for JAX.
  import jax

  from toolformer_jax.checkpoints.adapters.load import load_adapter, load_adapters
  from toolformer_jax.checkpoints.pretrained import load_pretrained

  if jax.config.values['jax_compilation_cache_dir'] is None:
    jax.config.update('jax_compilation_cache_dir', str(cache_directory() / 'compiled'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  mesh = config.make_mesh(devices)
  for path in (*([] if adapter is None else [adapter]), *(adapters or {}).values()):
    check_adapter(str(path))
  if adapter is not None and adapters:
    raise UserError('load_model takes `adapter` or `adapters`, not both; give all of them names')
  model = load_pretrained(str(checkpoint), mesh=mesh, dtype=config.dtype)
  # Python would crash if it ended while a copy to a device is in progress.
  jax.block_until_ready(model.variables)
  model = dataclasses.replace(model, source=str(checkpoint))
  if adapters:
    return load_adapters(model, {name: str(path) for name, path in adapters.items()})
  return model if adapter is None else load_adapter(model, str(adapter))
