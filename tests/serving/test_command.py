"""The command: what is wrong is told in a line, and a signal ends it when its requests are done."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest

from toolformer_jax import cli
from toolformer_jax.checkpoints.orbax import save_model

SMALL = ['--gin.EngineConfig.slots=4', '--gin.EngineConfig.max_model_len=200']


@pytest.fixture(scope='module')
def checkpoint(taught, tmp_path_factory):
  path = tmp_path_factory.mktemp('checkpoint') / 'tiny'
  save_model(path, taught)
  return str(path)


def text_of(response):
  """Returns the text of a response, which may be streamed: then to its end."""
  if response.headers['Content-Type'] == 'application/json':
    return response.json()['choices'][0]['text']
  *events, done = response.text.removesuffix('\n\n').split('\n\n')
  assert done == 'data: [DONE]'
  return ''.join(json.loads(event.removeprefix('data: '))['choices'][0]['text']
                 for event in events)


class Process:
  """A server in a process of its own."""

  def __init__(self, checkpoint, *options):
    self.process = subprocess.Popen(
        [sys.executable, '-m', 'toolformer_jax', 'serve', '--checkpoint', checkpoint, '--port', '0',
         '--tools', 'up', "--gin.CustomToolsConfig.functions={'Up': 'slow_tool:up'}", *SMALL,
         '--gin.GenerationConfig.top_k_api=1', *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    self.url = self.process.stdout.readline().strip().rstrip('/')
    self.states = []
    while self.process.poll() is None:
      try:
        self.states.append(httpx2.get(f'{self.url}/health').status_code)
      except httpx2.ConnectError:
        pass
      if self.states[-1:] == [200]:
        break
      time.sleep(0.02)

  def ask(self, answers, **fields):
    response = httpx2.post(f'{self.url}/v1/completions', timeout=60, json={
        'model': 'tiny', 'prompt': 'ab is', 'max_tokens': 6, **fields})
    answers.append(text_of(response) if response.status_code == 200 else response.status_code)

  def num_admitted(self):
    metrics = httpx2.get(f'{self.url}/metrics').text
    values = re.findall(r'^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)', metrics, re.M)
    assert len(values) == 2
    return sum(map(float, values))

  def end(self, *signals):
    """Sends signals; returns the exit code and what was logged."""
    for one in signals:
      self.process.send_signal(one)
      time.sleep(0.5)
    log = self.process.communicate(timeout=60)[1]
    return self.process.returncode, log


@pytest.fixture
def start(checkpoint, tmp_path, monkeypatch):
  """Starts servers whose tool takes a second, and ends them."""
  (tmp_path / 'slow_tool.py').write_text(
      'import time\ndef up(argument):\n  time.sleep(1.5)\n  return "XY"\n')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), *sys.path]))
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  started = []
  def start(*options):
    started.append(Process(checkpoint, *options))
    return started[-1]
  yield start
  for one in started:
    one.process.kill()
    one.process.communicate()


def ask_many(server, count):
  """Sends requests: whole, as streams, and as streams with log-probabilities."""
  answers, kinds = [], [{}, {'stream': True}, {'stream': True, 'logprobs': 1}]
  threads = [threading.Thread(target=server.ask, args=[answers], kwargs=kinds[i % 3])
             for i in range(count)]
  for thread in threads:
    thread.start()
  # Answers are counted first: one that comes in between is then counted as neither, not as both.
  while len(answers) + server.num_admitted() < count:
    time.sleep(0.02)
  return answers, threads


def test_a_signal_ends_the_server_when_what_it_admitted_is_done(start):
  server = start('--drain_s', '120')
  assert server.states[-1] == 200 and set(server.states[:-1]) <= {503}
  answers, threads = ask_many(server, 24)
  server.process.send_signal(signal.SIGTERM)
  while httpx2.get(f'{server.url}/health').status_code == 200:
    time.sleep(0.02)
  refused = []
  server.ask(refused)
  assert refused == [503] and httpx2.get(f'{server.url}/health').status_code == 503
  for thread in threads:
    thread.join()
  assert answers == [' [Up(ab) -> XY] XY.'] * 24
  code, log = server.end()
  assert code == 0 and 'Traceback' not in log and 'draining' in log


@pytest.fixture
def fails(capsys):
  def fails(*argv):
    code = cli.main(['serve', *argv])
    out, err = capsys.readouterr()
    assert (code, out) == (2, '')
    return err.splitlines()[-1]
  return fails


def test_what_is_wrong_is_told_in_a_line(fails, checkpoint, tmp_path):
  def wrong(*argv):
    return fails('--checkpoint', checkpoint, *argv)
  assert 'not a number of seconds' in wrong('--drain_s', 'x')
  assert 'not a number between' in wrong('--port', '70000')
  assert '--api_key_file' in wrong('--api_key_file', str(tmp_path / 'none'))
  (tmp_path / 'empty').write_text('\n')
  assert 'holds no key' in wrong('--api_key_file', str(tmp_path / 'empty'))
  assert 'unknown tool' in wrong('--tools', 'hammer')
  assert 'cannot serve on' in wrong('--host', 'no.such.host.invalid')
  assert 'it needs an --api_key_file' in wrong('--host', '0.0.0.0', '--port', '0')
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    assert 'choose another --host or --port' in wrong('--port', str(taken.getsockname()[1]))
  assert 'ServingConfig.max_n must be between' in wrong('--gin.ServingConfig.max_n=0')


def test_without_its_libraries_the_command_says_what_to_install():
  code = """import sys
sys.modules['uvicorn'] = None
from toolformer_jax.cli import main
sys.exit(main(['serve', '--checkpoint', 'x']))"""
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1] == (
      "error: serve needs uvicorn: pip install 'toolformer_jax[serve]'")


def test_the_package_does_not_load_the_libraries_of_the_server():
  code = """import json, sys
import toolformer_jax.api, toolformer_jax.config.loading
print(json.dumps([name for name in ('starlette', 'uvicorn', 'pydantic', 'prometheus_client')
                  if name in sys.modules]))"""
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert json.loads(done.stdout.splitlines()[-1]) == []
