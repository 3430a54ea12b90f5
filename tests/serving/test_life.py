"""A server takes requests when it is ready, and ends as it is told."""

import threading
import time

import httpx2
import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.top_logprobs import top_logprobs
from toolformer_jax.serving import logprobs
from toolformer_jax.serving import server as serving_server


def ask(server, answers, stream=False, **fields):
  response = server.post('completions', **{'prompt': 'ab is', 'stream': stream, **fields})
  assert not stream or response.text.endswith('data: [DONE]\n\n')
  answers.append(response.status_code)


def wait_for_running(server, count):
  while server.app_state.thread.num_running < count:
    time.sleep(0.01)


def hang(argument):
  threading.Event().wait(20)
  return 'late'


def test_draining_has_an_end(serve):
  with serve(hang, time_limit_s=100.0, drain_s=0.3) as server:
    answers = []
    thread = threading.Thread(target=ask, args=[server, answers])
    thread.start()
    wait_for_running(server, 1)
    server.server.end()
    assert server.join() == 0
    thread.join()
  assert answers == [503]


def test_requests_whose_prompts_are_still_scored_are_not_lost(serve, monkeypatch):
  def slow(model, tokens):
    time.sleep(2)
    return top_logprobs(model, tokens)
  monkeypatch.setattr(logprobs, 'top_logprobs', slow)
  monkeypatch.setattr(serving_server, '_FLUSH_S', 0.5)
  with serve() as server:
    answers = []
    threads = [threading.Thread(target=ask, args=[server, answers], kwargs={
        'logprobs': 1, 'echo': True, 'stream': stream}) for stream in (False, True)]
    for thread in threads:
      thread.start()
    while server.app_state.scorer.num_requests < 2:
      time.sleep(0.01)
    server.server.end()
    assert server.join() == 0
    for thread in threads:
      thread.join()
  assert answers == [200, 200]


def test_a_second_signal_does_not_wait(serve):
  with serve(hang, time_limit_s=100.0, drain_s=100.0) as server:
    thread = threading.Thread(target=ask, args=[server, []])
    thread.start()
    wait_for_running(server, 1)
    server.server.end()
    time.sleep(0.2)
    assert httpx2.get(f'{server.url}/health').status_code == 503
    begin = time.monotonic()
    server.server.end()
    assert server.join() == 1 and time.monotonic() - begin < 15
    thread.join()


def test_an_idle_server_ends_at_once(serve):
  with serve() as server:
    begin = time.monotonic()
    server.server.end()
    assert server.join() == 0 and time.monotonic() - begin < 15


def test_a_client_that_goes_away_frees_its_slot(serve):
  with serve(hang, slots=1, time_limit_s=100.0) as server:
    for stream in (False, True):
      with httpx2.Client() as client:
        try:
          client.post(f'{server.url}/v1/completions', timeout=0.5, json={
              'model': 'tiny', 'prompt': 'ab is', 'stream': stream})
        except httpx2.ReadTimeout:
          pass
      begin = time.monotonic()
      server.wait_until_idle()
      assert time.monotonic() - begin < 10  # the tool hangs for twice as long
    # The only slot is free again, though the tools still hang.
    answer = server.post('completions', prompt='xy', allowed_tools=[]).json()
    assert answer['choices'][0]['finish_reason'] in ('stop', 'length')


def test_a_step_that_fails_costs_its_requests_alone(serve, monkeypatch):
  with serve() as server:
    step = Engine.step
    def broken(engine):
      monkeypatch.setattr(Engine, 'step', step)
      raise MemoryError('none left')
    monkeypatch.setattr(Engine, 'step', broken)
    response = server.post('completions', prompt='ab is')
    assert response.status_code == 500
    assert response.json()['error']['message'] == 'a step of the engine has failed'
    text = server.post('completions', prompt='ab is').json()['choices'][0]['text']
    assert text == ' [Up(ab) -> XY] XY.'
    metrics = httpx2.get(f'{server.url}/metrics').text
    assert 'vllm:request_success_total{finished_reason="error",model_name="tiny"} 1.0' in metrics


@pytest.mark.parametrize(('error', 'status', 'message'), [
    (UserError('prompt 0 is not for this engine'), 400, 'prompt 0 is not for this engine'),
    (TypeError('a bug'), 500, 'the engine could not take the request')])
def test_a_request_that_the_engine_refuses_is_counted(serve, monkeypatch, error, status, message):
  def refuse(*arguments, **options):
    raise error
  with serve() as server:
    with monkeypatch.context() as patch:
      patch.setattr(Engine, 'add_request', refuse)
      response = server.post('completions', prompt='ab is')
    assert response.status_code == status
    assert response.json()['error']['message'] == message
    assert server.post('completions', prompt='ab is').status_code == 200
    metrics = httpx2.get(f'{server.url}/metrics').text
  assert 'vllm:request_success_total{finished_reason="error",model_name="tiny"} 1.0' in metrics


def test_metrics_count_requests_tokens_and_calls(serve):
  with serve() as server:
    for prompt, tools in (('ab is', ['Up']), ('cd is', ['Up']), ('xy', [])):
      server.post('completions', prompt=prompt, max_tokens=6, allowed_tools=tools)
    lines = httpx2.get(f'{server.url}/metrics').text.splitlines()
  values = {name: float(value) for name, _, value in (
      line.rpartition(' ') for line in lines if line and line[0] != '#')}
  label = '{model_name="tiny"}'
  assert values[f'vllm:num_requests_running{label}'] == 0
  assert values[f'vllm:num_requests_waiting{label}'] == 0
  assert values[f'vllm:prompt_tokens_total{label}'] == 5 + 5 + 2
  assert values[f'vllm:generation_tokens_total{label}'] > 12
  assert values[f'vllm:time_to_first_token_seconds_count{label}'] == 3
  assert values[f'vllm:e2e_request_latency_seconds_count{label}'] == 3
  assert values[f'vllm:request_queue_time_seconds_count{label}'] == 3
  assert 1 <= values[f'vllm:request_time_per_output_token_seconds_count{label}'] <= 3
  assert values[f'vllm:inter_token_latency_seconds_count{label}'] >= 2
  assert values['toolformer:warm_up_seconds'] > 0
  assert sum(value for name, value in values.items() if 'request_success_total' in name) == 3
  assert values['toolformer:tool_calls_total{tool="Up"}'] == 2
  assert values['toolformer:tool_failures_total{tool="Up"}'] == 0
  assert values['toolformer:tool_seconds_total{tool="Up"}'] >= 0
