"""Loads a model by name or path onto the devices of this process."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toolformer_jax.data.catalogue import cache_directory
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.validation import check

if TYPE_CHECKING:
  from collections.abc import Sequence

  import jax

  from toolformer_jax.models.language_model import LanguageModel

Dtype = Literal['float32', 'bfloat16']


@dataclass(frozen=True)
class ModelConfig:
  """How a model lies in memory, and how much is computed at a time.

  Attributes:
    dtype: of the computation, 'float32' or 'bfloat16'; what is trained is float32.
    data, fsdp, tensor: sizes of the mesh axes; -1 for what the others leave.
    scoring_tokens: tokens of texts whose log-probabilities are computed side by side.
    sampling_rows: calls sampled side by side. No result depends on these two but by rounding:
      more are faster on an accelerator, fewer need less memory.
  """

  dtype: Dtype = 'float32'
  data: int = 1
  fsdp: int = -1
  tensor: int = 1
  scoring_tokens: int = 1024
  sampling_rows: int = 128

  def __post_init__(self):
    check(self, data=(-1, 10**6), fsdp=(-1, 10**6), tensor=(-1, 10**6),
          scoring_tokens=(1, 10**9), sampling_rows=(1, 10**6))
    if 0 in (self.data, self.fsdp, self.tensor):
      raise UserError('ModelConfig: no axis of the mesh can have size 0')


def load_model(checkpoint: str, settings: ModelConfig,
               devices: 'Sequence[jax.Device] | None' = None) -> 'LanguageModel':
  """Returns the model `checkpoint` on `devices`, by default those of this process.

  Programs that XLA compiles are kept in the cache directory: the second run starts faster.

  Raises:
    UserError: there is no such checkpoint, or the mesh does not fit the devices.
  """
  # Imported here: what only names a model shall not wait for JAX.
  import jax

  from toolformer_jax.checkpoints.pretrained import load_pretrained
  from toolformer_jax.sharding import make_mesh

  jax.config.update('jax_compilation_cache_dir', str(cache_directory() / 'compiled'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  try:
    mesh = make_mesh(settings.data, settings.fsdp, settings.tensor, devices)
  except ValueError as error:
    raise UserError(f'ModelConfig: {error}') from error
  model = load_pretrained(checkpoint, mesh=mesh, dtype=settings.dtype)
  # Copies that are still under way when Python ends would crash it.
  jax.block_until_ready(model.variables)
  return dataclasses.replace(model, scoring_tokens=settings.scoring_tokens,
                             sampling_rows=settings.sampling_rows)
