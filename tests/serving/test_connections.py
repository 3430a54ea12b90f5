"""Clients that read slowly, close half of a connection or reuse it cost nobody else anything."""

import json
import socket
import time
import urllib.parse

import httpx2
import pytest

from toolformer_jax.serving.config import ServingConfig

WITH_CALL = ' [Up(ab) -> XY] XY.'
LIMITS = ServingConfig(max_body_bytes=20_000, max_tokens=200, max_n=64)


@pytest.fixture(scope='module')
def server(serve):
  with serve(limits=LIMITS) as running_server:
    yield running_server


def connect(server, receive_bytes=None):
  address = urllib.parse.urlsplit(server.url)
  connection = socket.socket()
  connection.settimeout(30)
  if receive_bytes:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
  connection.connect((address.hostname, address.port))
  return connection


def request(path='/v1/completions', **fields):
  body = json.dumps({'model': 'tiny', 'prompt': 'ab is', **fields}).encode()
  return (f'POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n'
          f'Content-Length: {len(body)}\r\n\r\n').encode() + body


def read_to_end(connection):
  content = b''
  while part := connection.recv(1 << 16):
    content += part
  return content


def ask(server):
  return server.post('completions', prompt='ab is').json()['choices'][0]['text']


def test_a_client_that_does_not_read_holds_up_nobody(server):
  with connect(server, receive_bytes=4096) as connection:
    connection.sendall(request(stream=True, n=48, max_tokens=200, min_tokens=200, temperature=1.0,
                               allowed_tools=[]))
    while not server.app_state.thread.num_running:
      time.sleep(0.01)
    assert ask(server) == WITH_CALL
    server.wait_until_idle()  # all of its texts are generated, and none of them is read
    assert ask(server) == WITH_CALL
    content = b''
    while b'data: [DONE]' not in content:
      part = connection.recv(1 << 16)
      assert part
      content += part
  events = [json.loads(line[6:]) for line in content.split(b'\n') if line.startswith(b'data: {')]
  choices = [choice for event in events for choice in event['choices']]
  assert {choice['index'] for choice in choices if choice['finish_reason']} == set(range(48))


def test_a_client_that_goes_away_without_reading_is_forgotten(server):
  with connect(server, receive_bytes=4096) as connection:
    connection.sendall(request(stream=True, n=48, max_tokens=200, min_tokens=200,
                               allowed_tools=[]))
    while not server.app_state.thread.num_running:
      time.sleep(0.01)
  server.wait_until_idle()
  assert ask(server) == WITH_CALL


@pytest.mark.parametrize('stream', [False, True])
def test_a_half_closed_connection_is_a_client_that_has_gone(server, stream):
  with connect(server) as connection:
    connection.sendall(request(stream=stream))
    connection.shutdown(socket.SHUT_WR)
    read_to_end(connection)  # an answer or none, but an end
  server.wait_until_idle()
  assert ask(server) == WITH_CALL


def test_half_a_request_is_no_request(server):
  for content in (b'POST /v1/comp', request()[:-4], b'\x16\x03\x01\x02\x00', b'GET / HTTP/9.9\r\n'):
    with connect(server) as connection:
      connection.sendall(content)
      connection.shutdown(socket.SHUT_WR)
      read_to_end(connection)
  assert server.app_state.thread.num_running == 0 and ask(server) == WITH_CALL


def test_a_connection_is_used_again_after_streams_and_errors(server):
  with httpx2.Client(base_url=server.url, timeout=60) as client:
    for fields, status in [({}, 200), ({'stream': True}, 200), ({'n': 0}, 400),
                           ({'prompt': 'x' * 30_000}, 413), ({'stream': True}, 200)]:
      response = client.post('/v1/completions', json={'model': 'tiny', 'prompt': 'ab is', **fields})
      assert response.status_code == status
      if fields == {'stream': True}:
        assert response.text.endswith('data: [DONE]\n\n')


def test_requests_may_be_sent_before_the_answers_of_earlier_ones(server):
  with connect(server) as connection:
    connection.sendall(request() + request(stream=True))
    content = b''
    while b'data: [DONE]' not in content:
      part = connection.recv(1 << 16)
      assert part
      content += part
  assert content.count(b'HTTP/1.1 200 OK') == 2


def test_several_servers_share_nothing_and_answer_alike(serve, server, generated):
  """A proxy may send each request of a conversation to another process."""
  fields = dict(prompt='cd is', temperature=0.9, seed=7)
  with serve() as other:
    texts = [one.post('completions', **fields).json()['choices'][0]['text']
             for one in (server, other, server, other)]
    assert texts == [generated('cd is', temperature=0.9, seed=7).text] * 4
    first = server.client().responses.create(model='tiny', input='ab is', max_output_tokens=6)
    asked = [{'role': 'user', 'content': 'ab is'}, *first.output,
             {'role': 'user', 'content': 'cd is'}]
    again = [one.client().responses.create(model='tiny', input=asked, max_output_tokens=6)
             for one in (server, other)]
    assert again[0].output_text == again[1].output_text
