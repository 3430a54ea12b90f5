"""What tests of MCP servers share: servers in processes of their own."""

import pathlib
import shlex
import socket
import subprocess
import sys
import time

import pytest

from toolformer_jax.tools.mcp import mcp_tools

WAIT_S = 30.0  # Far more than anything here needs.
HERE = pathlib.Path(__file__).parent


def free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


class Web:
  """A server in a process of its own, reached by HTTP; it can be started again."""

  def __init__(self, script, *arguments):
    self.port = free_port()
    self.url = f'http://127.0.0.1:{self.port}/mcp'
    self._command = [sys.executable, str(HERE / script), *arguments, str(self.port)]
    self.start()

  def start(self):
    self._process = subprocess.Popen(self._command)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
      with socket.socket() as probe:
        if probe.connect_ex(('127.0.0.1', self.port)) == 0:
          return
      time.sleep(0.02)
    raise TimeoutError(self._command)

  def stop(self):
    self._process.kill()
    self._process.wait()


def started(server, *arguments, **limits):
  """The tools of a script beside this file, or of a URL, by name."""
  if not server.startswith('http'):
    server = shlex.join([sys.executable, str(HERE / server), *arguments])
  return {tool.name: tool for tool in mcp_tools(server, **limits)}


@pytest.fixture
def connect():
  """Starts or reaches servers and closes them: see `started`."""
  opened = []

  def open_tools(*arguments, **limits):
    opened.append(started(*arguments, **limits))
    return opened[-1]

  yield open_tools
  for tools in opened:
    next(iter(tools.values())).close()


@pytest.fixture
def rogue(connect):
  """The tools of a server that breaks the protocol."""
  return connect('mcp_rogue.py', 'tame')


@pytest.fixture
def rogue_web():
  web = Web('mcp_rogue.py', 'http')
  yield web
  web.stop()


@pytest.fixture(scope='module', params=['stdio', 'http'])
def example(request):
  """The tools of a server that was written with the package, by name."""
  web = Web('mcp_server.py', '--port') if request.param == 'http' else None
  tools = started(web.url if web else 'mcp_server.py')
  yield tools
  tools['pid'].close()
  if web:
    web.stop()
