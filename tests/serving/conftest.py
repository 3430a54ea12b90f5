"""A server with a tiny model that was taught to call a tool."""

import contextlib
import dataclasses
import threading
import time

import httpx2
import openai
import pytest

from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.server import Server, bind, make_app_state, open_executor
from toolformer_jax.tools.executor import Executor, ExecutorConfig
from toolformer_jax.tools.function import tool

from ..taught_model import ANSWERS, teach

GENERATION = GenerationConfig(max_tokens=6, top_k_api=1)


@pytest.fixture(scope='session')
def taught(make_model, tmp_path_factory):
  """A model that has learned ` [Up(ab) -> XY] XY.` by heart, for two arguments."""
  return teach(make_model(embed_dim=64, mlp_dim=128, max_positions=512),
               tmp_path_factory.mktemp('taught'))


class Running:
  """A server that runs on a thread.

  Attributes:
    url: where it is.
    app_state: what its routes share.
    server: ends it.
    code: its exit code, once it has ended.
  """

  def __init__(self, app_state, **options):
    bound = bind('127.0.0.1', 0)
    self.url = f'http://127.0.0.1:{bound.getsockname()[1]}'
    self.app_state, self.code = app_state, None
    self.server = Server(app_state, bound, **options)
    self._thread = threading.Thread(target=self._run)
    self._thread.start()

  def _run(self):
    self.code = self.server.run()

  def wait_until_ready(self):
    while self.app_state.thread.state == 'starting':
      time.sleep(0.02)
    assert httpx2.get(f'{self.url}/health').status_code == 200

  def wait_until_idle(self):
    """Waits until no request has a slot, waits for one, or has a prompt scored."""
    for _ in range(1000):
      if not self.app_state.thread.num_unfinished + self.app_state.scorer.num_requests:
        return
      time.sleep(0.01)
    raise AssertionError('the server is still busy')

  def join(self):
    self._thread.join(60)
    return self.code

  def client(self, key='none', **options):
    return openai.OpenAI(base_url=f'{self.url}/v1', api_key=key, max_retries=0, **options)

  def post(self, path, headers=(), **fields):
    return httpx2.post(f'{self.url}/v1/{path}', json={'model': 'tiny', **fields}, timeout=60,
                       headers=dict(headers))


@contextlib.contextmanager
def run_server(model, answer=ANSWERS.get, *, slots=4, time_limit_s=10.0, limits=ServingConfig(),
            **options):
  """Runs a server whose model has one tool, `Up`: the function `answer`, or a tool."""
  tools = [answer if hasattr(answer, 'version') else tool(answer, name='Up')]
  executor_config = ExecutorConfig(time_limit_s=time_limit_s)
  state_options = {'generation': GENERATION, 'limits': limits,
                   'engine_config': EngineConfig(slots=slots, max_model_len=240)}
  with open_executor(tools, executor_config, slots, limits, DEFAULT_SYNTAX) as executor:
    server = Running(make_app_state(model, executor, name='tiny', **state_options), **options)
    server.wait_until_ready()
    try:
      yield server
    finally:
      server.server.end()
      server.server.end()
      server.join()


@pytest.fixture(scope='session')
def running():
  """Returns the function that runs a server, see `run_server`."""
  return run_server


@pytest.fixture(scope='session')
def serve(taught):
  """Returns a function that runs a server of the taught model, see `run_server`."""
  def serve(*arguments, **options):
    return run_server(taught, *arguments, **options)
  return serve


@pytest.fixture(scope='session')
def generated(taught):
  """Returns a function from a prompt to what `generate` makes of it."""
  def generated(prompt, answer=ANSWERS.get, **changes):
    with Executor([tool(answer, name='Up')]) as executor:
      return generate(taught, [taught.tokenizer.encode(prompt)], executor=executor,
                      config=dataclasses.replace(GENERATION, **changes))[0]
  return generated


@pytest.fixture(scope='module')
def server(serve):
  """A server that nobody ends before the tests of a module do."""
  with serve() as running_server:
    yield running_server
