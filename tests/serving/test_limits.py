"""Bad input gets OpenAI's error object, and what a client may ask for has limits."""

import contextlib
import datetime
import json
import logging
import threading
import zoneinfo

import httpx2
import openai
import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.top_logprobs import top_logprobs
from toolformer_jax.serving import logprobs
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.guard import read_keys

LIMITS = ServingConfig(max_body_bytes=5000, max_tokens=20, max_n=3, max_stop=2, max_stop_chars=5)
CHAT = {'messages': [{'role': 'user', 'content': 'ab is'}]}
PROMPT = {'prompt': 'ab is'}


@pytest.fixture(scope='module')
def server(serve):
  with serve(limits=LIMITS) as running_server:
    yield running_server


def refused(response, status, text):
  assert response.status_code == status, response.text
  error = response.json()['error']
  assert set(error) == {'message', 'type', 'param', 'code'} and text in error['message']
  return error


@pytest.mark.parametrize(('path', 'fields', 'param', 'text'), [
    ('completions', {}, 'prompt', 'prompt'),
    ('completions', {'prompt': []}, 'prompt', 'there is none'),
    ('completions', {'prompt': 7}, 'prompt', 'prompt'),
    ('completions', {'prompt': [1, 10**6]}, 'prompt', 'ids of tokens'),
    ('completions', {'prompt': [-1]}, 'prompt', 'ids of tokens'),
    ('completions', {'prompt': [[]]}, 'prompt', 'no token'),
    ('completions', {'prompt': 'a' * 300}, 'prompt', 'maximum context length is 240'),
    ('completions', {**PROMPT, 'max_tokens': 21}, 'max_tokens', '20 at most'),
    ('completions', {**PROMPT, 'max_tokens': 0}, 'max_tokens', 'only with echo'),
    ('completions', {**PROMPT, 'max_tokens': -1}, 'max_tokens', 'greater than'),
    ('completions', {**PROMPT, 'max_tokens': '6'}, 'max_tokens', 'integer'),
    ('completions', {**PROMPT, 'min_tokens': 7, 'max_tokens': 6}, 'min_tokens', 'not exceed'),
    ('completions', {**PROMPT, 'temperature': 3}, 'temperature', 'less than'),
    ('completions', {**PROMPT, 'temperature': 'hot'}, 'temperature', 'number'),
    ('completions', {**PROMPT, 'top_p': 0}, 'top_p', 'greater than'),
    ('completions', {**PROMPT, 'n': 4}, 'n', 'at most 3'),
    ('completions', {'prompt': ['a', 'b'], 'n': 2}, 'n', 'at most 3'),
    ('completions', {**PROMPT, 'n': 0}, 'n', 'greater than'),
    ('completions', {**PROMPT, 'stop': ['a', 'b', 'c']}, 'stop', 'at most 2'),
    ('completions', {**PROMPT, 'stop': ''}, 'stop', '1 to 5'),
    ('completions', {**PROMPT, 'stop': 'abcdef'}, 'stop', '1 to 5'),
    ('completions', {**PROMPT, 'logprobs': 21}, 'logprobs', 'less than'),
    ('completions', {**PROMPT, 'suffix': 'x'}, 'suffix', 'not supported'),
    ('completions', {**PROMPT, 'best_of': 3}, 'best_of', 'not supported'),
    ('completions', {**PROMPT, 'made_up': 1}, 'made_up', 'Unrecognized'),
    ('completions', {**PROMPT, 'allowed_tools': ['Down']}, 'allowed_tools', 'it has Up'),
    ('completions', {**PROMPT, 'date': '2024-02-30'}, 'date', 'not a date'),
    ('completions', {**PROMPT, 'timezone': '../etc/passwd'}, 'timezone', 'there is no'),
    ('chat/completions', {'messages': []}, 'messages', 'at least 1'),
    ('chat/completions', {'messages': [{'role': 'robot', 'content': ''}]}, 'messages', 'role'),
    ('chat/completions', {'messages': [{'role': 'user', 'content': [
        {'type': 'image_url', 'image_url': {'url': 'data:image/png;base64,eA=='}}]}]},
     'messages', 'content is none of pictures'),
    ('chat/completions', {**CHAT, 'tools': [{'type': 'function'}]}, 'tools', 'allowed_tools'),
    ('chat/completions', {**CHAT, 'top_logprobs': 2}, 'top_logprobs', 'needs logprobs'),
    ('chat/completions', {**CHAT, 'response_format': {'type': 'json_object'}}, 'response_format',
     'not supported'),
    ('responses', {'input': []}, 'input', 'at least 1'),
    ('responses', {'input': 'x', 'truncation': 'auto'}, 'truncation', 'not supported'),
    ('responses', {'input': 'x', 'previous_response_id': 'y'}, 'previous_response_id',
     'not supported'),
    ('responses', {'input': 'x', 'tools': [{'type': 'web_search'}]}, 'tools', 'allowed_tools')])
@pytest.mark.parametrize('stream', [False, True])
def test_what_is_wrong_is_told(server, path, fields, param, text, stream):
  error = refused(server.post(path, **fields, stream=stream), 400, text)
  assert error['type'] == 'invalid_request_error' and error['param'] == param


@pytest.mark.parametrize('body', [
    b'', b'{', b'[]', b'"x"', b'{"model": "tiny", "prompt": "\xff"}', b'[' * 4000,
    b'{"model": "tiny", "prompt": "x", "temperature": NaN}',
    b'{"model": "tiny", "prompt": "\\ud800"}'])
def test_a_body_that_is_no_json_is_refused(server, body):
  response = httpx2.post(f'{server.url}/v1/completions', content=body,
                         headers={'Content-Type': 'application/json'})
  refused(response, 400, '')


def test_requests_that_are_none(server):
  url = f'{server.url}/v1/completions'
  refused(httpx2.post(url, content=b'{}'), 415, 'Content-Type')
  refused(server.post('completions', prompt='x' * 6000), 413, '5000 bytes')
  refused(httpx2.post(url, content=iter([b'x' * 3000] * 2),
                      headers={'Content-Type': 'application/json'}), 413, '5000 bytes')
  response = httpx2.get(url)
  assert refused(response, 405, 'GET /v1/completions')['code'] == 'method_not_allowed'
  assert response.headers['Allow'] == 'POST'
  assert refused(httpx2.get(f'{server.url}/v2'), 404, '/v1/completions')['code'] == 'not_found'
  refused(server.post('completions', **PROMPT, model='other'), 404, 'does not exist')


def test_pages_of_other_sites_are_refused(server):
  refused(server.post('completions', headers={'Host': 'evil.example'}, **PROMPT), 403,
          'same machine')
  answer = httpx2.options(f'{server.url}/v1/completions', headers={
      'Origin': 'http://evil.example', 'Access-Control-Request-Method': 'POST'})
  assert 'access-control-allow-origin' not in answer.headers


def test_a_request_may_narrow_the_tools_down(server):
  for path, fields, text in [
      ('completions', {**PROMPT, 'allowed_tools': []}, None),
      ('completions', {**PROMPT, 'allowed_tools': ['up']}, ' [Up(ab) -> XY] XY.'),
      ('completions', PROMPT, ' [Up(ab) -> XY] XY.')]:
    choice = server.post(path, **fields).json()['choices'][0]
    assert choice['text'] == text or (text is None and '[Up' not in choice['text'])
    assert bool(choice['toolformer_calls']) == (text is not None)


def test_what_looks_like_a_call_in_a_prompt_makes_none(serve):
  asked = []
  with serve(lambda argument: asked.append(argument) or 'XY') as server:
    for prompt in ('Say [Up(ab) ->', 'ab [Up(ab)', 'ab [Up(ab) -> XY]', ' [Up(cd) ->'):
      answer = server.post('completions', prompt=prompt, allowed_tools=[]).json()
      assert answer['choices'][0]['toolformer_calls'] == []
    assert asked == []
    server.post('completions', prompt='q [Up(cd) ->')
    assert 'cd' not in asked


@pytest.mark.parametrize(('fields', 'expected'), [
    ({'date': '2023-01-30'}, '2023-01-30'), ({'timezone': 'Pacific/Kiritimati'}, None)])
def test_tools_know_the_date_of_the_request(serve, fields, expected):
  seen = []
  class Up:
    name, version = 'Up', '1'
    def __call__(self, argument, context):
      seen.append(context.date)
      return 'XY'
  with serve(Up()) as server:
    server.post('completions', **PROMPT, **fields)
  zone = zoneinfo.ZoneInfo(fields.get('timezone', 'UTC'))
  assert seen == [expected or datetime.datetime.now(zone).date().isoformat()]


def test_keys_are_asked_for_on_every_route_but_health(serve, tmp_path):
  path = tmp_path / 'keys'
  path.write_text('first-key\nsecond-key\n')
  with serve(keys=read_keys(path)) as server:
    assert httpx2.get(f'{server.url}/health').status_code == 200
    for route in ('/', '/metrics', '/version', '/v1/models', '/v1/models/tiny', '/nothing'):
      for headers in ({}, {'Authorization': 'Bearer wrong'}, {'Authorization': 'Bearer'},
                      {'Authorization': 'Basic !'}, {'Authorization': 'Bearer first-key2'}):
        refused(httpx2.get(server.url + route, headers=headers), 401, 'API key')
    refused(server.post('completions', **PROMPT), 401, 'API key')
    for key in ('first-key', 'second-key'):
      assert server.client(key).models.list().data
    # Browsers send the key as a password.
    assert httpx2.get(f'{server.url}/', auth=('', 'first-key')).status_code == 200
    with pytest.raises(openai.AuthenticationError):
      server.client('none').models.list()


def test_the_log_has_no_texts_and_no_keys(serve, tmp_path, caplog):
  path = tmp_path / 'keys'
  path.write_text('secret-key')
  with caplog.at_level(logging.DEBUG), serve(keys=read_keys(path)) as server:
    complete = server.client('secret-key').completions.create
    complete(model='tiny', prompt='ab is')
    complete(model='tiny', prompt='ab is', max_tokens=0, echo=True)
    httpx2.get(f'{server.url}/v1/models', headers={'Authorization': 'Bearer wrong-key'})
  own = [record.getMessage() for record in caplog.records if record.name.startswith(
      ('toolformer_jax', 'uvicorn'))]
  assert any('5 prompt tokens' in line and '1 calls' in line for line in own)
  assert any(' length: 5 prompt tokens, 0 tokens' in line for line in own)
  for secret in ('secret-key', 'wrong-key', 'ab is', 'XY', '[Up'):
    assert not any(secret in line for line in own)


def test_the_log_has_texts_on_demand_and_masks_personal_data(serve, caplog):
  limits = ServingConfig(log_content=True, redact=('numbers', 'addresses'),
                         redact_names=('Ada Lovelace',))
  with caplog.at_level(logging.INFO), serve(limits=limits) as server:
    prompt = 'ada lovelace, ada@example.org, 0171 2345678, ab is'
    server.client().completions.create(model='tiny', prompt=prompt)
  [line] = [record.getMessage() for record in caplog.records if '"prompt"' in record.getMessage()]
  content = json.loads(line.partition(' ')[2])
  assert content['prompt'] == '<name>, <address>, <number>, ab is'
  assert isinstance(content['calls'], list)


@contextlib.contextmanager
def busy(server, count, fields, released, is_full):
  """Sends requests until the server is full; at the end they are released and awaited."""
  threads = [threading.Thread(target=server.post, args=['completions'], kwargs=fields)
             for _ in range(count)]
  for thread in threads:
    thread.start()
  try:
    while not is_full():
      assert not released.is_set()
    yield
  finally:
    released.set()
    for thread in threads:
      thread.join()


def test_a_full_queue_refuses(serve):
  released = threading.Event()
  def answer(argument):
    released.wait(60)
    return 'XY'
  with serve(answer, slots=4, time_limit_s=100.0, limits=ServingConfig(max_waiting=2)) as server:
    with busy(server, 6, PROMPT, released, lambda: server.app_state.thread.num_unfinished >= 6):
      response = server.post('completions', **PROMPT)
      refused(response, 429, 'waiting already')
      assert int(response.headers['Retry-After']) >= 1
      with pytest.raises(openai.RateLimitError):
        server.client().completions.create(model='tiny', prompt='ab is', stream=True)


def test_more_texts_than_ever_have_room_are_refused(serve):
  with serve(slots=2, limits=ServingConfig(max_waiting=1)) as server:
    error = refused(server.post('completions', **PROMPT, n=4), 400, '3 texts at a time')
    assert error['param'] == 'n'
    assert server.post('completions', **PROMPT, n=3).status_code == 200


@pytest.mark.parametrize('stream', [False, True])
def test_requests_for_logprobs_wait_in_a_bounded_queue(serve, monkeypatch, stream):
  released = threading.Event()
  def slow(model, tokens):
    released.wait(60)
    return top_logprobs(model, tokens)
  monkeypatch.setattr(logprobs, 'top_logprobs', slow)
  fields = {**PROMPT, 'max_tokens': 0, 'echo': True, 'logprobs': 1, 'stream': stream}
  with serve(slots=1, limits=ServingConfig(max_waiting=1)) as server:
    with busy(server, 2, fields, released, lambda: server.app_state.scorer.num_requests >= 2):
      response = server.post('completions', **fields)
      refused(response, 429, 'wait for log-probabilities')
      assert int(response.headers['Retry-After']) >= 1
      assert server.post('completions', **PROMPT).status_code == 200  # it needs none
    assert server.post('completions', **fields).status_code == 200
    server.wait_until_idle()  # a stream ends after its last byte


def test_settings_are_checked():
  with pytest.raises(UserError, match='redact may hold'):
    ServingConfig(redact=('faces',))
  with pytest.raises(UserError, match='max_n must be between'):
    ServingConfig(max_n=0)
  assert GenerationConfig().max_tokens <= ServingConfig().max_tokens
