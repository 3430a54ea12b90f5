"""Draws private batches: each text is in a batch with the same probability, whatever the others do.

Batches of a Poisson sample differ in size. They are filled up with padding to one number of rows,
which nearly all fit in; a larger one has a multiple of it, so that no text is ever left out.
"""

import itertools
import json
import secrets
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from scipy import stats

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import atomic_writer
from toolformer_jax.runtime.run_dir import read_json
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.input_pipeline import Picks, row_multiple
from toolformer_jax.training.packing import PackedRows, Segment, rows_of
from toolformer_jax.training.privacy.accounting import spent_epsilon
from toolformer_jax.training.privacy.config import PrivacyConfig

SECRET = 'private_seed.json'  # in the folder of a run, until it is finished
_SEED_BITS = 256
_RARE = 1e-6  # share of the batches that do not fit


class PrivateRows:
  """Texts of which batches are Poisson samples, one text in each row.

  Attributes:
    row_multiple: number of rows of nearly all batches.
    epoch_items: number of texts.
    sampling_probability: of each text, in each batch.
  """

  def __init__(self, rows: PackedRows, config: FinetuneConfig, privacy: PrivacyConfig,
               mesh: Mesh, seed: int):
    """Prepares the batches.

    Args:
      rows: a text in each row.
      config: with the expected size of a batch.
      privacy: noise and delta.
      mesh: of the devices.
      seed: of the samples and of the noise; must be secret.

    Raises:
      UserError: there are fewer texts than a batch has, or delta is too large for them.
    """
    _check(len(rows), config, privacy)
    self._rows, self._seed, self._privacy = rows, seed, privacy
    self.epoch_items = len(rows)
    self.sampling_probability = config.batch_size / len(rows)
    largest = int(stats.binom.isf(_RARE, len(rows), self.sampling_probability))
    self.row_multiple = row_multiple(max(largest, config.batch_size), config, mesh)

  @property
  def noise_key(self) -> jax.Array:
    """The key of the noise of all steps."""
    words = np.random.SeedSequence(self._seed).spawn(1)[0].generate_state(2, np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl='threefry2x32')

  def size(self, block: int) -> int:
    """Returns the number of texts."""
    return len(self._rows)

  def picks(self, start_step: int) -> Iterator[Picks]:
    """Yields the texts of each batch from `start_step` on; they depend on seed and step alone."""
    for step in itertools.count(start_step):
      drawn = np.random.default_rng((self._seed, step)).random(len(self._rows))
      yield [(0, np.flatnonzero(drawn < self.sampling_probability))]

  def rows(self, picks: Picks) -> PackedRows:
    """Returns the rows of a batch, with padding."""
    (_, indices), = picks
    padded = max(1, -(-len(indices) // self.row_multiple)) * self.row_multiple
    return self._rows.take(indices).pad(padded)

  def epsilon(self, steps: int) -> float:
    """Returns the epsilon that is spent after a number of steps."""
    return spent_epsilon(self._privacy, self.sampling_probability, steps)


def _check(texts: int, config: FinetuneConfig, privacy: PrivacyConfig) -> None:
  if config.batch_size > texts:
    raise UserError(f'FinetuneConfig.batch_size is {config.batch_size}, but there are only {texts} '
                    'texts: with privacy a batch is a sample of them')
  if privacy.delta * texts >= 1:
    raise UserError(f'PrivacyConfig.delta is {privacy.delta}; with {texts} texts it must be less '
                    f'than {1 / texts:.1g}')


def one_text_per_row(segments: Sequence[Sequence[Segment]], row_tokens: int) -> PackedRows:
  """Returns a row for each text; that of a text without tokens to predict is padding.

  Args:
    segments: the segments of each text.
    row_tokens: tokens of a row.

  Raises:
    UserError: texts do not fit into a row.
  """
  if longer := [sum(len(part.inputs) for part in parts) for parts in segments if len(parts) > 1]:
    raise UserError(f'{len(longer)} of {len(segments)} texts have more tokens than '
                    f'FinetuneConfig.row_tokens, {row_tokens}, the longest {max(longer)}: with '
                    'privacy a text must fit into a row')
  return rows_of(segments, row_tokens)


def open_private_rows(rows: PackedRows, config: FinetuneConfig, privacy: PrivacyConfig, mesh: Mesh,
                      output_dir: epath.Path, *, is_new: bool) -> PrivateRows:
  """Returns what the batches of the run in `output_dir` are drawn from.

  Raises:
    UserError: see `PrivateRows`; or the run has begun (not `is_new`), and its seed is gone.
  """
  return PrivateRows(rows, config, privacy, mesh, secret_seed(output_dir, is_new=is_new))


def secret_seed(output_dir: epath.Path, *, is_new: bool) -> int:
  """Returns the seed of a run, which is drawn at its beginning and kept until it is finished.

  It is not `FinetuneConfig.seed`: whoever knows the seed can take the noise away.

  Raises:
    UserError: the run has begun, and its seed is gone.
  """
  path = output_dir / SECRET
  if path.exists():
    return int(read_json(path)['seed'], 16)
  if not is_new:
    raise UserError(f'{path} is gone: the run cannot go on with the same noise; choose another '
                    '--output_dir')
  seed = secrets.randbits(_SEED_BITS)
  with atomic_writer(path, private=True) as file:
    file.write(json.dumps({'seed': f'{seed:x}'}))
  return seed


def forget_seed(output_dir: epath.Path) -> None:
  """Removes the seed of a finished run."""
  (output_dir / SECRET).unlink(missing_ok=True)
