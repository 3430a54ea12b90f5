"""Gets JAX and a model ready for a run: compile cache, mesh, weights, and what identifies them."""

import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolformer_jax.annotation.hosted import PREFIXES
from toolformer_jax.errors import UserError
from toolformer_jax.fetch import CATALOGUE, cache_directory, file_sha256
from toolformer_jax.settings import check

if TYPE_CHECKING:
  from collections.abc import Sequence

  import jax

  from toolformer_jax.models.language_model import LanguageModel

_PATIENCE_S = 86_400  # a day
DTYPES = ('float32', 'bfloat16')


@dataclass(frozen=True)
class ModelSettings:
  """How a model lies in memory, and how much is computed at a time.

  Attributes:
    dtype: of the computation, 'float32' or 'bfloat16'; what is trained is float32.
    data, fsdp, tensor: sizes of the mesh axes; -1 for what the others leave.
    scoring_tokens: tokens of texts whose log-probabilities are computed side by side.
    sampling_rows: calls sampled side by side. No result depends on these two but by rounding:
      more are faster on an accelerator, fewer need less memory.
  """

  dtype: str = 'float32'
  data: int = 1
  fsdp: int = -1
  tensor: int = 1
  scoring_tokens: int = 1024
  sampling_rows: int = 128

  def __post_init__(self):
    check(self, data=(-1, 10**6), fsdp=(-1, 10**6), tensor=(-1, 10**6),
          scoring_tokens=(1, 10**9), sampling_rows=(1, 10**6))
    if self.dtype not in DTYPES:
      raise UserError(f'ModelSettings.dtype must be {" or ".join(DTYPES)}, not {self.dtype!r}')
    if 0 in (self.data, self.fsdp, self.tensor):
      raise UserError('ModelSettings: no axis of the mesh can have size 0')


def load_model(checkpoint: str, settings: ModelSettings,
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
    raise UserError(f'ModelSettings: {error}') from error
  model = load_pretrained(checkpoint, mesh=mesh, dtype=settings.dtype)
  # Copies that are still under way when Python ends would crash it.
  jax.block_until_ready(model.variables)
  return dataclasses.replace(model, scoring_tokens=settings.scoring_tokens,
                             sampling_rows=settings.sampling_rows)


def join_cluster() -> tuple[int, int]:
  """Meets the processes of `jax.distributed`; returns which one this is, and how many there are.

  Raises:
    UserError: there is no such cluster, or it can not be joined.
  """
  import jax
  try:
    jax.distributed.initialize(
        num_processes=_from_environment('JAX_NUM_PROCESSES'),
        process_id=_from_environment('JAX_PROCESS_ID'),
        # Shards end at different times: who is done waits for the others, and one that dies does
        # not take them with it.
        heartbeat_timeout_seconds=_PATIENCE_S, shutdown_timeout_seconds=_PATIENCE_S)
  except (ValueError, RuntimeError) as error:
    raise UserError(f'--distributed: can not join the other processes ({error}); set '
                    'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID') from error
  return jax.process_index(), jax.process_count()


def _from_environment(name: str) -> int | None:
  """Returns the number in a variable of the environment; None without one."""
  value = os.environ.get(name)
  if value is not None and not value.isdecimal():
    raise UserError(f'{name} must be a number, not {value!r}')
  return None if value is None else int(value)


def versions() -> dict[str, str]:
  """Returns the versions of the software that a run's numbers may depend on."""
  names = ('toolformer_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy', 'tokenizers', 'bm25s')
  return {name: importlib.metadata.version(name) for name in names}


def identity(name: str) -> str:
  """Returns a hash of the content of a file, a folder, or what `fetch` knows as `name`.

  It tells two models or corpora apart wherever they lie. In an output folder of `finetune` only
  the model counts, not what was kept on the way to it; of a hosted corpus, its name alone.

  Raises:
    UserError: there is no such thing, or it can not be read.
  """
  if name.startswith(PREFIXES):  # too large to be read for this
    return hashlib.sha256(name.encode()).hexdigest()
  path, asset = pathlib.Path(name), CATALOGUE.get(name)
  # As their readers have it: the name of a model wins over a file, a file over that of a corpus.
  if asset and (asset.kind == 'model' or not path.is_file()):
    return asset.sha256
  path = path / 'model' if (path / 'model').is_dir() else path
  try:
    if path.is_dir():
      files = sorted(file for file in path.rglob('*') if file.is_file())
      lines = [f'{file.relative_to(path).as_posix()} {file_sha256(file)}' for file in files]
      return hashlib.sha256('\n'.join(lines).encode()).hexdigest()
    return file_sha256(path)
  except OSError as error:
    raise UserError(f'can not read {name}: {error.strerror}') from error
