"""Events of a stream are lines of ASCII, and an error among them is the last one."""

import asyncio
import json

import pytest

from toolformer_jax.serving import sse
from toolformer_jax.serving.errors import ApiError

TEXT = 'é 漢 🙂 \u2028 \x85 \x0b \r\n "end"'


def streamed(events):
  """Returns what a client receives that stays to the end."""
  sent = []
  async def send(message):
    sent.append(message)
  async def receive():
    await asyncio.Event().wait()
  asyncio.run(sse.EventStream(events)({'type': 'http'}, receive, send))
  assert sent[0]['status'] == 200 and not sent[-1]['more_body']
  return b''.join(message.get('body', b'') for message in sent).decode()


def test_an_event_is_one_line_for_every_client():
  told = sse.event({'text': TEXT}, 'name')
  assert told.isascii() and told.splitlines() == told.split('\n')[:-1]
  name, data, rest = told.splitlines()
  assert (name, rest) == ('event: name', '') and json.loads(data[6:]) == {'text': TEXT}


@pytest.mark.parametrize(('error', 'message'), [
    (ApiError(503, 'try again'), 'try again'), (KeyError('secret'), 'the server has a bug')])
def test_an_error_is_the_last_event(error, message):
  async def events():
    yield sse.event({'text': 'a'})
    raise error
  first, last, rest = streamed(events()).split('\n\n')
  assert json.loads(first[6:]) == {'text': 'a'} and rest == ''
  assert message in json.loads(last[6:])['error']['message'] and 'secret' not in last
