"""What all tests share: eight simulated devices, outside data, and the model that is fetched."""

import os
import pathlib

# Before JAX is imported. Who tests on an accelerator says so.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import hypothesis
import jax
import pytest

from toolformer_jax.fetch import DownloadError, fetch

REPOSITORY = pathlib.Path(__file__).parent.parent

jax.config.update('jax_num_cpu_devices', 8)

hypothesis.settings.register_profile(
  'toolformer',
  deadline=None,  # the machines of CI are slow and shared
  derandomize=True,
  max_examples=100,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile('toolformer')


@pytest.fixture(scope='session')
def data_dir() -> pathlib.Path:
  """The data sets that tests may read but the repository must not hold."""
  path = pathlib.Path(os.environ.get('TOOLFORMER_DATA', REPOSITORY.parent / 'shared' / 'data'))
  if not path.is_dir():
    pytest.skip(f'there is no {path}: set TOOLFORMER_DATA to the data sets')
  return path


@pytest.fixture(scope='session')
def smollm2_path() -> pathlib.Path:
  """The GGUF file of SmolLM2-135M-Instruct, in the user's cache."""
  try:
    return fetch('smollm2-135m')
  except DownloadError as error:
    pytest.skip(str(error))
