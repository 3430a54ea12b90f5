"""What all tests share: eight simulated devices, outside data, a real model and a tiny one."""

import importlib
import os
import pathlib
import signal
import sys

# Before JAX is imported. Who tests on an accelerator says so.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# XLA's other scheduler lets the simulated devices reach independent collectives in different
# orders: with fewer cores than devices they then wait for each other for ever.
os.environ['XLA_FLAGS'] = (os.environ.get('XLA_FLAGS', '') +
                           ' --xla_cpu_enable_concurrency_optimized_scheduler=false')

import hypothesis
import jax
import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from toolformer_jax import sharding
from toolformer_jax.data.catalogue import DownloadError, fetch
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.tokenizer import Tokenizer

REPOSITORY = pathlib.Path(__file__).parent.parent

jax.config.update('jax_num_cpu_devices', 8)
# Tests that are started in the background ignore interrupts, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope='module')
def experiment():
  """Returns a function that imports a script by its name; scripts import each other."""
  folder, before = str(REPOSITORY / 'experiments'), {*sys.modules}
  sys.path.insert(0, folder)
  yield importlib.import_module
  sys.path.remove(folder)
  for name in {*sys.modules} - before:
    if folder in str(getattr(sys.modules[name], '__file__', '')):
      del sys.modules[name]


END = '<|endoftext|>'


@pytest.fixture(scope='session', autouse=True)
def compile_once(tmp_path_factory):
  """Every run compiles its own step; most of these programs are equal, in all processes.

  One that another process has half written is compiled again, with a warning.
  """
  before = jax.config.jax_compilation_cache_dir
  own = tmp_path_factory.getbasetemp()
  shared = own.parent if 'PYTEST_XDIST_WORKER' in os.environ else own
  jax.config.update('jax_compilation_cache_dir', str(shared / 'compiled'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  yield
  jax.config.update('jax_compilation_cache_dir', before)


@pytest.fixture(scope='session')
def tokenizer():
  """A token for every byte, and two that merges make."""
  tokens = [*sorted(ByteLevel.alphabet()), 'Ġ[', '->', END]
  return Tokenizer.byte_level_bpe(tokens, [('Ġ', '['), ('-', '>')], [END], split_digits=True,
                                  bos_id=None, eos_id=tokens.index(END))


@pytest.fixture(scope='session')
def make_model(tokenizer):
  """Returns a function from changes of a configuration, and a mesh, to a random model."""
  def make(mesh=None, **changes):
    mesh = sharding.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, layers=2, embed_dim=32, heads=4, kv_heads=2, head_dim=8,
        mlp_dim=64, max_positions=128, rotary_dim=8).replace(**changes)
    decoder = Decoder(config)
    random = _random(abstract_variables(decoder))
    return LanguageModel.from_variables(config, random, tokenizer, mesh)
  return make


def _random(boxed):
  """Returns variables of the given shapes, norms near one."""
  rng = np.random.default_rng(1)
  def draw(leaf):
    return rng.normal(leaf.ndim < 3 and leaf.shape[-1] == 32, 0.1, leaf.shape).astype(np.float32)
  return jax.tree.map(draw, sharding.unbox(boxed))
