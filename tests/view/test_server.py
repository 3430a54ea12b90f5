"""The server answers this machine's browsers, people's mistakes included, and nobody else."""

import argparse
import base64
import hashlib
import http.client
import re
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax import cli
from toolformer_jax.commands import view
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError
from toolformer_jax.view.data import LiveRun
from toolformer_jax.view.server import make_server, respond

COMMAND = """import argparse, sys
from toolformer_jax import cli
from toolformer_jax.commands import view
parser = argparse.ArgumentParser()
view.add_arguments(parser)
code = cli.guarded(lambda: view.run(parser.parse_args()), resumable=False)
sys.exit(code or 'jax' in sys.modules)"""


@pytest.fixture(scope='module')
def path(tmp_path_factory, write_run, scored):
  documents = [Document('a', 'One <b>two</b> € three.')]
  return write_run(tmp_path_factory.mktemp('view') / 'run', [documents],
                   [scored('a', 2, 1.5), scored('a', 4, 0.25)], {'Calculator': 0.5})


@pytest.fixture(scope='module')
def live_run(path):
  return LiveRun(path)


@pytest.fixture(scope='module')
def port(live_run):
  with make_server(live_run, 0) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()


def ask(port, target='/', method='GET', **headers):
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
  connection.request(method, target, headers=headers)
  response = connection.getresponse()
  body = response.read().decode()
  connection.close()
  return response.status, response.headers, body


def test_page_is_served_with_a_strict_policy(port):
  status, headers, body = ask(port)
  assert (status, headers['Content-Type']) == (200, 'text/html; charset=utf-8')
  assert headers['Cache-Control'] == 'no-store'
  assert 'One &lt;b&gt;two&lt;/b&gt; €' in re.sub('<span class="call.*?</span>', '', body)
  policy = dict(part.split(' ', 1) for part in headers['Content-Security-Policy'].split('; '))
  assert policy['default-src'] == "'none'"
  for tag in ('script', 'style'):
    content, = re.findall(f'<{tag}>(.*?)</{tag}>', body, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert policy[f'{tag}-src'] == f"'sha256-{digest}'"


def test_head_is_the_head_of_get(port):
  def head(method):
    status, headers, body = ask(port, method=method)
    return (status, {k: v for k, v in headers.items() if k != 'Date'}), body
  (got, _), (head_only, body) = head('GET'), head('HEAD')
  assert (got, body) == (head_only, '')


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE'])
def test_nothing_but_reading_is_served(port, method):
  assert ask(port, method=method)[0] == 501


@pytest.mark.parametrize('host, status', [
  ('localhost', 200), ('LOCALHOST:9', 200), ('127.0.0.1:8765', 200), ('[::1]:80', 200),
  ('evil.example', 403), ('evil.example:8765', 403), ('127.0.0.1.evil.example', 403), ('', 403),
  ('localhost@evil.example', 403), ('127.0.0.1:80x', 403),
])
def test_only_names_of_this_machine_are_answered(port, host, status):
  code, _, body = ask(port, Host=host)
  assert (code, 'three.' in body) == (status, status == 200)


@pytest.mark.parametrize('target, status, message', [
  ('/favicon.ico', 404, 'There is no such page'), ('/../run.json', 404, 'no such page'),
  ('/?page=2', 404, 'There is no page 2; the last one is 1'),
  ('/?min_gain=x', 400, 'min_gain: &#39;x&#39; is not a number'),
  ('/?tool=%3Cscript%3E', 400, 'unknown tool &#39;&lt;script&gt;&#39;'),
  ('/?tool=Calculator&state=kept', 200, '<strong>1 calls</strong> in 1 of 1 texts'),
  ('/?tau_f.Calculator=2', 200, 'keeps <output>0</output> calls'),
  ('/?min_gain=9', 200, '<strong>0 calls</strong>'),
])
def test_addresses(port, target, status, message):
  code, _, body = ask(port, target)
  assert code == status and message in body


@given(st.text(), st.sampled_from(['/', '/?', '/?tool=', '/?page=', '/?state=', '/?min_gain=',
                                   '/?tau_f.Calculator=', '//', 'http://x/?', '']))
def test_every_address_has_an_answer(live_run, rest, start):
  status, page = respond(live_run, 'localhost', start + rest)
  assert status in (200, 400, 404) and page.startswith('<!DOCTYPE html>')


def test_a_file_that_breaks_meanwhile_is_named(tmp_path, write_run, scored, chunk):
  path = write_run(tmp_path / 'run', [[Document('a', 'abc')]], [scored('a', 0, 1)],
                   {'Calculator': 0.5})
  live_run = LiveRun(path)
  assert respond(live_run, 'localhost', '/')[0] == 200
  chunk(path, 'calculator/filter/00000.jsonl').write_text('{')
  status, page = respond(live_run, 'localhost', '/')
  assert status == 500 and '00000.jsonl does not have the 1 records that were written' in page
  _replace(chunk(path, 'calculator/filter/00000.jsonl'), '{')
  status, page = respond(live_run, 'localhost', '/')
  assert status == 500 and '00000.jsonl:1: not a ScoredCall record' in page
  _replace(chunk(path, 'calculator/filter/00000.jsonl'), '')
  _replace(chunk(path, 'calculator/sample/00000.jsonl'),
           '{"document_id": "a", "tool": "Calculator", "argument": "", "position": 7, '
           '"probability": 0}')
  status, page = respond(live_run, 'localhost', '/')
  assert status == 500 and 'a call at position 7' in page


def _replace(file, text):
  """Replaces a chunk by one that somebody else made, which has no counts file."""
  file.with_suffix('.counts.json').unlink(missing_ok=True)
  file.write_text(text)


def test_half_a_surrogate_is_no_failure(tmp_path, write_run, tokenizer, chunk):
  path = write_run(tmp_path / 'run', [[Document('a', 'x')]], [], {'Calculator': 0.5})
  _replace(chunk(path, 'documents/00000.jsonl'), '{"id": "a", "text": "a\\ud800b"}')
  _replace(chunk(path, 'calculator/sample/00000.jsonl'),
           '{"document_id": "a", "tool": "Calculator", "argument": "\\udfff", "position": 2, '
           '"probability": 0}')
  with make_server(LiveRun(path), 0) as server:
    threading.Thread(target=server.handle_request).start()
    status, _, body = ask(server.server_port)
  assert status == 200 and '[Calculator(?)]' in body and 'a?<span' in body


def test_a_port_that_is_taken_is_an_error(live_run, port):
  with pytest.raises(UserError, match=f'cannot serve on port {port} .*; choose another --port'):
    make_server(live_run, port)


def test_command_prints_the_address_and_ends_with_the_interrupt(path):
  with subprocess.Popen([sys.executable, '-c', COMMAND, str(path), '--port', '0'], text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
    address = process.stdout.readline().strip()
    with urllib.request.urlopen(address, timeout=10) as response:
      assert response.status == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
  assert (process.returncode, out, err) == (0, '', '')


@pytest.mark.parametrize('argv, message', [
  (['nowhere'], 'nowhere is not the output folder of an annotation run'),
  (['.', '--port', '65536'], "--port: '65536' is not a number between 0 and 65535"),
  (['.', '--port', '-1'], "--port: '-1' is not"),
])
def test_command_refuses_bad_input(capsys, argv, message):
  parser = argparse.ArgumentParser()
  view.add_arguments(parser)
  assert cli.guarded(lambda: view.run(parser.parse_args(argv)), resumable=False) == 2
  error, = capsys.readouterr().err.splitlines()
  assert error.startswith('error: ') and message in error
