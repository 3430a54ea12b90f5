"""Damaged settings and messages for `fuzz.py`: gin files, MCP, the pages of `view`, `serve`."""

import contextlib
import http.client
import json
import pathlib
import random
import shlex
import socket
import sys
import threading
import time
from collections import Counter
from typing import Any

from fuzz_target import ACCEPTED, REFUSED, Target, refusable
from mutation import json_bytes, mutate_bytes, mutate_json, mutate_text

from toolformer_jax.tools.base import Context, ToolError

_GIN = (
    "include 'quickstart.gin'\nAnnotationConfig.temperature = 0.7\nSEED = 3\n"
    "calculator/ToolConfig.k = 20\nCHECKPOINT = 'smollm2-135m'\nTASKS = ['lama', 'asdiv']\n",
    "import os\nCustomToolsConfig.mcp = {\n  'get_weather': 'python server.py --key=$KEY'\n}\n",
    'FinetuneConfig.steps = 48 # c\nfrom a import b\nA = 1e-3\nFinetuneConfig.learning_rate = %A\n',
    "ModelConfig.dtype = 'bfloat16'\nMtConfig:\n  translator = 'nllb'\n  checkpoint = @x()\n")


def _gin(folder: pathlib.Path) -> Target:
  from toolformer_jax.config.loading import load
  path = folder / 'settings.gin'
  seeds = [text.encode() for text in _GIN]
  def run(content: bytes) -> str:
    path.write_bytes(content)
    return refusable(lambda: load([path]))
  return Target(lambda rng: mutate_bytes(rng.choice(seeds), seeds, rng), run)


_SCHEMA = {
    'type': 'object', 'required': ['city'], 'properties': {
        'city': {'type': 'string'}, 'days': {'type': ['integer', 'null']},
        'near': {'anyOf': [{'type': 'number'}, {'type': 'array', 'items': {'type': 'string'}}]}}}


def _mcp_arguments(folder: pathlib.Path) -> Target:
  """Makes calls to a tool whose server damages its list of tools and its results."""
  from mcp import types

  from toolformer_jax.tools.mcp import McpTool
  arguments = ('Paris', '{"city": "Paris", "days": 3}', '5', '[1, 2]', '{"near": 1e3}', '')
  result = {'content': [{'type': 'text', 'text': 'one'}, {'type': 'resource', 'resource': {
      'uri': 'file:///a', 'text': 'two'}}], 'structuredContent': {'a': [1]}, 'isError': False}
  def make(rng: random.Random) -> tuple[Any, str, Any]:
    schema = mutate_json(_SCHEMA, rng)
    return (schema if isinstance(schema, dict) else _SCHEMA,  # the protocol has objects alone
            mutate_text(rng.choice(arguments), arguments, rng), mutate_json(result, rng))
  class Server:
    redact = staticmethod(str)

    def __init__(self, answer: Any):
      self._answer = answer

    def call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
      json.dumps(arguments, allow_nan=False)
      try:
        return types.CallToolResult.model_validate(self._answer)
      except ValueError as error:
        raise ToolError('not a result') from error
  def run(made: tuple[Any, str, Any]) -> str:
    schema, argument, answer = made
    tool = McpTool('weather', '1', '', 'weather', schema, Server(answer), 1.0)
    return refusable(lambda: tool(argument, Context()), ToolError)
  return Target(make, run)


_SERVER = '''
import json, pathlib, sys
for line in sys.stdin:
  message = json.loads(line)
  if 'id' not in message:
    continue
  method = message['method']
  if method == 'tools/call':
    answer = pathlib.Path(message['params']['arguments']['text']).read_bytes()
    sys.stdout.buffer.write(answer.replace(b'@', str(message['id']).encode()) + b'\\n')
    sys.stdout.flush()
    continue
  answer = {'error': {'code': -32601, 'message': 'no such method'}}
  if method == 'initialize':
    answer = {'result': {'protocolVersion': message['params']['protocolVersion'],
                         'capabilities': {}, 'serverInfo': {'name': 'a', 'version': '0'}}}
  if method == 'tools/list':
    schema = {'type': 'object', 'properties': {'text': {'type': 'string'}}, 'required': ['text']}
    answer = {'result': {'tools': [{'name': 'echo', 'inputSchema': schema}]}}
  print(json.dumps({'jsonrpc': '2.0', 'id': message['id'], **answer}), flush=True)
'''
_MESSAGES = (
    b'{"jsonrpc": "2.0", "id": @, "result": {"content": [{"type": "text", "text": "one"}]}}',
    b'{"jsonrpc": "2.0", "id": @, "error": {"code": -32602, "message": "no", "data": {}}}',
    b'{"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}}')


def _mcp_messages(folder: pathlib.Path) -> Target:
  """Calls a tool of a process that answers with damaged lines."""
  from toolformer_jax.tools.mcp import mcp_tools
  script, answer = folder / 'server.py', folder / 'answer'
  script.write_text(_SERVER, 'utf-8')
  tool, = mcp_tools(shlex.join([sys.executable, str(script)]), call_limit_s=1.0)
  def run(content: bytes) -> str:
    answer.write_bytes(content)
    return refusable(lambda: tool(str(answer), Context()), ToolError, OSError)
  def make(rng: random.Random) -> bytes:
    message = rng.choice(_MESSAGES)
    if rng.random() < 0.3:
      return mutate_bytes(message, _MESSAGES, rng)
    fields = json.loads(message.replace(b'@', b'"@"'))  # the server puts the id in its place
    return json_bytes(mutate_json(fields, rng)).replace(b'"@"', b'@')
  return Target(make, run)


def _view(folder: pathlib.Path) -> Target:
  """Sends damaged requests to the server of `view`."""
  from tiny_model import tiny_tokenizer

  from toolformer_jax.annotation.run_dir import RunFolder
  from toolformer_jax.annotation.run_reader import CALL_RECORDS, DOCUMENTS, stage_name
  from toolformer_jax.data.records import Document, ScoredCall, SelectedText, from_json, to_json
  from toolformer_jax.view.data import LiveRun
  from toolformer_jax.view.server import make_server
  call = ScoredCall('a', 'Calculator', '1 + 2', 3, 0.25, '3', None, loss_no_call=3.0,
                    loss_call=4.0, loss_result=1.0)
  tools = {'Calculator': {'tau_s': 0.1, 'k': 5, 'm': 5, 'tau_f': 1.0}}
  with RunFolder(folder / 'run', {'tools': tools}, {}) as opened:
    tiny_tokenizer().save(folder / 'run')
    opened.write(DOCUMENTS, 0, [Document('a', 'It is 1 + 2.')], Counter())
    opened.write(stage_name('Calculator', 'select'), 0, [SelectedText('a', 0)], Counter())
    for stage, kind in CALL_RECORDS.items():
      opened.write(stage_name('Calculator', stage), 0, [from_json(kind, to_json(call))], Counter())
  server = make_server(LiveRun(folder / 'run'), 0)
  failures: list[BaseException] = []
  server.handle_error = lambda *_: failures.append(sys.exception())
  threading.Thread(target=server.serve_forever, daemon=True).start()
  seeds = [b'GET /?tool=Calculator&state=kept&min_gain=0.5&tau_f.Calculator=1&page=1 HTTP/1.1\r\n'
           b'Host: localhost:1\r\n\r\n', b'HEAD / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n']
  def run(content: bytes) -> str:
    status = _exchange(server.server_port, content)
    if failures:
      raise failures.pop()
    assert status != 500, 'internal error'
    return ACCEPTED if status == 200 else REFUSED
  return Target(lambda rng: mutate_bytes(rng.choice(seeds), seeds, rng), run)


def _exchange(port: int, content: bytes) -> int:
  """Sends bytes to a port of this machine and returns the status of the answer; 0 for none."""
  with socket.create_connection(('127.0.0.1', port), timeout=5) as opened:
    with contextlib.suppress(OSError):  # it may have closed the connection
      opened.sendall(content)
      opened.shutdown(socket.SHUT_WR)
    answer = b''
    with contextlib.suppress(ConnectionError):
      while part := opened.recv(1 << 16):
        answer += part
  words = answer.split(None, 2)
  is_status = len(words) > 1 and words[0].startswith(b'HTTP/') and words[1].isdigit()
  return int(words[1]) if is_status else 0


_REQUESTS = {
    '/v1/completions': {'model': 'tiny', 'prompt': ['It is', 'a'], 'max_tokens': 2, 'n': 1,
                        'stop': ['x'], 'logprobs': 1, 'temperature': 0.5, 'seed': 1, 'top_p': 0.9},
    '/v1/chat/completions': {
        'model': 'tiny', 'messages': [
            {'role': 'system', 'content': 'Be short.'},
            {'role': 'user', 'content': [
                {'type': 'text', 'text': 'hello'},
                {'type': 'image_url', 'image_url': {'url': 'data:image/gif;base64,R0lGODlh'}},
                {'type': 'input_audio', 'input_audio': {'data': 'SUQz', 'format': 'mp3'}}]}],
        'max_completion_tokens': 2, 'stream': True, 'logprobs': True, 'top_logprobs': 1},
    '/v1/responses': {
        'model': 'tiny', 'input': [
            {'role': 'user', 'content': [{'type': 'input_text', 'text': 'hello'}]},
            {'type': 'mcp_call', 'name': 'Calculator', 'arguments': '1', 'output': '1'}],
        'max_output_tokens': 2, 'tools': [{'type': 'mcp', 'server_label': 'toolformer'}],
        'date': '2020-01-30'}}


def _serving(folder: pathlib.Path) -> Target:
  """Sends damaged requests to a server with a small model and the calculator."""
  from tiny_model import tiny_model

  from toolformer_jax.calls import DEFAULT_SYNTAX
  from toolformer_jax.inference.config import EngineConfig, GenerationConfig
  from toolformer_jax.serving.config import ServingConfig
  from toolformer_jax.serving.server import Server, bind, make_app_state, open_executor
  from toolformer_jax.tools.calculator import Calculator
  from toolformer_jax.tools.executor import ExecutorConfig
  executor = open_executor([Calculator()], ExecutorConfig(), 4, ServingConfig(), DEFAULT_SYNTAX)
  model = tiny_model(max_positions=128)
  model.tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n" \
                                  '{% endfor %}'
  state = make_app_state(model, executor.__enter__(), name='tiny',
                         generation=GenerationConfig(max_tokens=2),
                         engine_config=EngineConfig(slots=4, max_model_len=128))
  bound = bind('127.0.0.1', 0)
  threading.Thread(target=Server(state, bound).run, daemon=True).start()
  while state.thread.state == 'starting':
    time.sleep(0.1)
  port = bound.getsockname()[1]

  def make(rng: random.Random) -> tuple[str, bytes]:
    path = rng.choice(list(_REQUESTS))
    body = json_bytes(mutate_json(_REQUESTS[path], rng))
    return path, mutate_bytes(body, [body], rng) if rng.random() < 0.2 else body

  def run(made: tuple[str, bytes]) -> str:
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    with contextlib.closing(connection):
      connection.request('POST', made[0], made[1], {'Content-Type': 'application/json'})
      response = connection.getresponse()
      body = response.read()
    assert response.status < 500 and state.thread.state == 'ready', body
    assert b'internal_error' not in body, body
    return ACCEPTED if response.status == 200 else REFUSED

  return Target(make, run)


TARGETS = {'gin': _gin, 'mcp_arguments': _mcp_arguments, 'mcp_messages': _mcp_messages,
           'view': _view, 'serving': _serving}
