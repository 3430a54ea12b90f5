"""What tests of plans share: the TPU compiler, if it is installed, and requests."""

import importlib.util

import jax
import pytest

from toolformer_jax import sharding
from toolformer_jax.models import language_model
from toolformer_jax.models.presets import PRESETS
from toolformer_jax.planning.plan import Request
from toolformer_jax.planning.slices import Slice
from toolformer_jax.training.config import FinetuneConfig


@pytest.fixture(scope='session')
def libtpu():
  """Skips what needs the TPU compiler where it is not installed."""
  if importlib.util.find_spec('libtpu') is None:
    pytest.skip("libtpu is not installed: pip install 'toolformer_jax[aot]'")


@pytest.fixture(scope='module', autouse=True)
def simulated_devices_are_chips():
  """Simulated devices stand for chips of TPUs, which compute all in bfloat16; CPUs differ in it."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(language_model, 'choose_parts', lambda mesh: 'all')
    yield


@pytest.fixture(scope='session')
def mesh_of():
  """Returns a function from sizes of axes to a mesh of simulated devices."""
  def make(*sizes):
    count = abs(sizes[0] * sizes[1] * sizes[2])
    return sharding.make_mesh(*sizes, devices=jax.devices('cpu')[:count])
  return make


@pytest.fixture(scope='session')
def gpt_j():
  """Returns a function from changes to a request for GPT-J 6B on 8 chips of v5e."""
  request = Request(
      'gptj_6b', PRESETS['gptj_6b'].replace(dtype='bfloat16'), Slice.named('v5e-8'),
      'train', 32, 1024, (1, 8, 1), FinetuneConfig(remat_policy='full', first_moment='bfloat16'))
  return request.replace
