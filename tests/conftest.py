"""What all tests share: eight simulated devices, outside data, a real model and a tiny one."""

import fcntl
import gc
import importlib
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
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
from toolformer_jax.data.catalogue import fetch
from toolformer_jax.data.download import DownloadError
from toolformer_jax.models import language_model
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.tokenizer import Tokenizer

from . import storage_emulator

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


def pytest_collection_finish() -> None:
  """Leaves out of garbage collections what was imported: it is never garbage, and takes long."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(10_000)


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


@pytest.fixture(scope='session')
def _buckets():
  """The addresses of new buckets, for this process and those that it starts."""
  if storage_emulator.MISSING:
    pytest.skip(f'the package {storage_emulator.MISSING} is not installed')
  with storage_emulator.storage_emulator() as environment, pytest.MonkeyPatch.context() as patch:
    for name, value in environment.items():
      patch.setenv(name, value)
    yield storage_emulator.new_buckets()


@pytest.fixture
def bucket(_buckets) -> str:
  """The address of a new bucket, gs://NAME."""
  return next(_buckets)


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
_MOST_MAPS = 25_000


@pytest.fixture(scope='module', autouse=True)
def few_memory_maps():
  """Forgets the programs of earlier modules before there are too many.

  XLA maps memory for each, and a process that reaches Linux's limit, 65,530 maps, crashes.
  """
  yield
  maps = pathlib.Path('/proc/self/maps')
  if maps.exists() and maps.read_bytes().count(b'\n') > _MOST_MAPS:
    jax.clear_caches()


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


@pytest.fixture
def make_bfloat16(make_model, monkeypatch):
  """Returns a function from what is computed in bfloat16, and changes, to a random model.

  Without it that depends on the CPU: many have no fast products of bfloat16, and use float32.
  """
  def make(parts, *args, **changes):
    monkeypatch.setattr(language_model, 'choose_parts', lambda mesh: parts)
    return make_model(*args, dtype='bfloat16', **changes)
  return make


@pytest.fixture(scope='session')
def make_eager_model(make_model):
  """As `make_model`, of models that are eager to end calls: now and then they write whole ones."""
  def make(**changes):
    model = make_model(tied_head=False, head_bias=True, **changes)
    ids = np.array([model.tokenizer.encode(mark)[0] for mark in ')]'])
    head = model.variables['params']['head']
    head['bias'] = head['bias'].at[ids].set(15.0)
    return model
  return make


def _random(boxed):
  """Returns variables of the given shapes, norms near one."""
  rng = np.random.default_rng(1)
  def draw(leaf):
    return rng.normal(leaf.ndim < 3 and leaf.shape[-1] == 32, 0.1, leaf.shape).astype(np.float32)
  return jax.tree.map(draw, sharding.unbox(boxed))


class Browser:
  """Headless Chromium, driven over the pipe of its DevTools.

  Attributes:
    complaints: errors, violations of the policy and messages of the page.
  """

  def __init__(self, binary: str, profile):
    theirs, self._to = os.pipe()
    self._from, ours = os.pipe()
    # Numbers that are surely not 3 or 4, where the browser looks for its pipe.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (theirs, ours)]
    self._process = subprocess.Popen(
        ['bash', '-c', f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', 'bash', binary, '--headless',
         '--no-sandbox', '--remote-debugging-pipe', f'--user-data-dir={profile}', 'about:blank'],
        pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for end in (theirs, ours, *ends):
      os.close(end)
    self._received, self._sent, self._session, self.complaints = b'', 0, None, []
    target = self.tell('Target.createTarget', url='about:blank')['targetId']
    self._session = self.tell('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
    for domain in ('Page', 'Runtime', 'Log'):
      self.tell(f'{domain}.enable')

  def tell(self, method: str, **params):
    self._sent += 1
    session = {'sessionId': self._session} if self._session else {}
    message = {'id': self._sent, 'method': method, 'params': params, **session}
    os.write(self._to, json.dumps(message).encode() + b'\0')
    answer = self._wait(lambda message: message.get('id') == self._sent)
    assert 'error' not in answer, answer
    return answer['result']

  def open(self, address: str, width: int = 1280, scripts: bool = True) -> None:
    self.tell('Emulation.setScriptExecutionDisabled', value=not scripts)
    self.tell('Emulation.setDeviceMetricsOverride', width=width, height=900, deviceScaleFactor=1,
              mobile=False)
    self.tell('Page.navigate', url=address)
    self.wait_for_load()

  def wait_for_load(self) -> None:
    self._wait(lambda message: message.get('method') == 'Page.loadEventFired')

  def evaluate(self, expression: str):
    answer = self.tell('Runtime.evaluate', expression=f'{{{expression}}}', returnByValue=True)
    assert 'exceptionDetails' not in answer, answer
    return answer['result'].get('value')

  def close(self) -> None:
    os.close(self._to)  # which ends it
    self._process.wait(timeout=20)
    os.close(self._from)

  def _wait(self, wanted):
    while True:
      while b'\0' not in self._received:
        answers, _, _ = select.select([self._from], [], [], 30)
        part = os.read(self._from, 1 << 16) if answers else b''
        assert part, 'the browser does not answer'
        self._received += part
      line, _, self._received = self._received.partition(b'\0')
      message = json.loads(line)
      if message.get('method') in (
          'Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded'):
        self.complaints.append(message['params'])
      if wanted(message):
        return message


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  binary = shutil.which('chromium')
  if binary is None:
    pytest.skip('chromium is not installed')
  opened = Browser(binary, tmp_path_factory.mktemp('profile'))
  yield opened
  opened.close()
