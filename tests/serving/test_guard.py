"""What a server is asked before a route is: keys in any encoding, and bodies that do not end."""

import asyncio
import base64

import pytest
from starlette.requests import Request

from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.guard import Guard, read_body, read_keys

KEY = 'schlüssel-漢'


def status(keys, authorization):
  """Returns the status of a request with a header."""
  sent = []
  async def app(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
  async def send(message):
    sent.append(message)
  scope = {'type': 'http', 'path': '/v1/models', 'headers': [(b'authorization', authorization)]}
  asyncio.run(Guard(app, keys, only_local=True)(scope, None, send))
  return sent[0]['status']


def test_keys_are_compared_as_bytes(tmp_path):
  (tmp_path / 'keys').write_text(f'other\n{KEY}\n', 'utf-8')
  keys = read_keys(tmp_path / 'keys')
  assert status(keys, f'Bearer {KEY}'.encode()) == 200
  assert status(keys, b'Basic ' + base64.b64encode(f'user:{KEY}'.encode())) == 200
  assert status(keys, f'Bearer {KEY[:-1]}'.encode()) == 401


def test_a_client_that_leaves_in_the_middle_of_a_body_is_told_apart_from_a_bug():
  messages = [{'type': 'http.request', 'body': b'{"mo', 'more_body': True},
              {'type': 'http.disconnect'}]
  async def receive():
    return messages.pop(0)
  scope = {'type': 'http', 'headers': [(b'content-type', b'application/json')]}
  with pytest.raises(ApiError, match='has closed the connection'):
    asyncio.run(read_body(Request(scope, receive), 100))
