"""A server with several adapters: a request chooses one by its name, as the model."""

import argparse
import collections
import dataclasses
import threading
import time

import httpx2
import jax
import numpy as np
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.adapter_stack import stack_adapters
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.training.adapters import add_adapter
from toolformer_jax.training.config import FinetuneConfig

CHAT = [{'role': 'user', 'content': 'ab is'}]


@pytest.fixture(scope='module')
def alone(taught):
  """The model with each of two adapters."""
  tuned = {}
  for seed, name in enumerate(('first', 'second')):
    config = LoraConfig(rank=2 + seed)
    model, rng = add_adapter(taught, FinetuneConfig(adapter=config)), np.random.default_rng(seed)
    weights = jax.tree.map(
        lambda x, rng=rng: jax.device_put(
            (x + rng.normal(0, 0.3, x.shape)).astype(np.float32), x.sharding),
        model.variables[ADAPTER])
    tuned[name] = dataclasses.replace(model, variables=model.variables | {ADAPTER: weights})
  return tuned


@pytest.fixture(scope='module')
def may_answer():
  """Whether the tool answers, or hangs."""
  event = threading.Event()
  event.set()
  return event


@pytest.fixture(scope='module')
def server(running, taught, alone, may_answer):
  def answer(argument):
    assert may_answer.wait(60)
    return 'XY'
  with running(stack_adapters(taught, alone), answer, slots=2, time_limit_s=100.0) as started:
    yield started


@pytest.fixture(scope='module')
def client(server):
  return server.client()


def test_models_lists_adapters_with_their_parent(client):
  listed = client.models.list().data
  assert [(model.id, model.parent) for model in listed] == [
      ('tiny', None), ('first', 'tiny'), ('second', 'tiny')]
  assert client.models.retrieve('second').parent == 'tiny'


@pytest.mark.parametrize('name', ['tiny', 'first', 'second'])
def test_the_answer_and_its_logprobs_are_the_adapters(client, taught, alone, name):
  merged = merge_adapter(alone[name]) if name in alone else taught
  whole = client.completions.create(model=name, prompt='ab is', max_tokens=6, logprobs=0, echo=True,
                                    extra_body={'allowed_tools': []})
  assert whole.model == name
  choice = whole.choices[0]
  prompt = taught.tokenizer.encode('ab is')
  made, = generate(merged, [prompt], config=GenerationConfig(max_tokens=6, disable_tools=True))
  assert choice.text == 'ab is' + made.text
  ids = [taught.tokenizer.start_id, *prompt, *made.token_ids]
  ours = np.array(choice.logprobs.token_logprobs)
  np.testing.assert_allclose(ours, _logprobs(merged, ids)[:len(ours)], atol=1e-4)
  assert len(ours) > len('ab is')


def _logprobs(model, ids):
  logits = np.asarray(model.decoder.apply(model.variables, np.array([ids]))[0][0], np.float64)
  logits -= logits.max(-1, keepdims=True)
  logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return logprobs[np.arange(len(ids) - 1), ids[1:]]


def test_chats_and_responses_take_an_adapter_too(client):
  texts = {name: client.completions.create(
      model=name, prompt='User: ab is\nAssistant:', max_tokens=6, stop=['\nUser:']).choices[0].text
           for name in ('tiny', 'first', 'second')}
  assert len({*texts.values()}) > 1
  for name, text in texts.items():
    chat = client.chat.completions.create(model=name, messages=CHAT, max_tokens=6)
    assert (chat.model, chat.choices[0].message.content) == (name, text)
    response = client.responses.create(model=name, input='ab is', max_output_tokens=6)
    assert (response.model, response.output_text) == (name, text)


def test_metrics_count_each_request_under_the_model_that_it_asks_for(server, client, taught):
  prompt = 'A cat sat on a mat. ' * 5  # more than a block of the prefix cache
  asked, before = {'tiny': 1, 'first': 2, 'second': 0}, metrics_of(server)
  for name, times in asked.items():
    for _ in range(times):
      client.completions.create(model=name, prompt=prompt, max_tokens=6)
  values = metrics_of(server)
  for name, times in asked.items():
    own = {metric: value - before[metric, name] for (metric, model), value in values.items()
           if model == name}
    tokens = len(taught.tokenizer.encode(prompt))
    assert own['vllm:prompt_tokens_total'] == times * tokens
    assert own['vllm:prefix_cache_queries_total'] == times * (tokens + 1)
    assert own['vllm:prefix_cache_hits_total'] == (64 if times > 1 else 0)
    assert own.get('vllm:request_success_total', 0) == times
    assert bool(own['vllm:generation_tokens_total']) == bool(times)
    for histogram in ('time_to_first_token', 'e2e_request_latency', 'request_queue_time'):
      assert own[f'vllm:{histogram}_seconds_count'] == times
    assert own['vllm:num_requests_running'] == own['vllm:num_requests_waiting'] == 0


def test_metrics_tell_for_which_model_requests_run_and_wait(server, may_answer):
  may_answer.clear()
  # The adapters are noise: only the model itself calls its tool.
  threads = [threading.Thread(target=server.post, args=['completions'], kwargs={
      'model': name, 'prompt': 'ab is'}) for name in ('tiny', 'tiny', 'first')]
  for running, waiting, thread in zip((1, 2, 2), (0, 0, 1), threads, strict=True):
    thread.start()
    engine = server.app_state.thread
    while (engine.num_running, engine.num_waiting) != (running, waiting):
      time.sleep(0.01)
  values = metrics_of(server)
  may_answer.set()
  for thread in threads:
    thread.join()
  told = {name: [values[f'vllm:num_requests_{state}', name] for state in ('running', 'waiting')]
          for name in ('tiny', 'first', 'second')}
  assert told == {'tiny': [2, 0], 'first': [0, 1], 'second': [0, 0]}


def metrics_of(server):
  """Returns the values of /metrics by metric and model, summed over other labels."""
  families = text_string_to_metric_families(httpx2.get(f'{server.url}/metrics').text)
  values = collections.Counter()
  for sample in (sample for family in families for sample in family.samples):
    if 'model_name' in sample.labels:
      values[sample.name, sample.labels['model_name']] += sample.value
  return values


def test_a_name_that_is_not_there_is_404(client):
  with pytest.raises(openai.NotFoundError, match="'tiny', 'first', 'second'"):
    client.completions.create(model='third', prompt='ab is')


def chosen(*given):
  """Returns the adapter without a name, and the folders of those that have one."""
  args = argparse.Namespace(adapter=None, adapters=[*given])
  return options.adapters_by_name(args), args.adapter


def test_options_name_the_adapters(tmp_path):
  assert chosen() == ({}, None)
  folder = tmp_path / 'rate=3'
  folder.mkdir()
  (folder / 'adapter_config.json').write_text('{}')
  assert chosen(str(folder)) == ({}, str(folder))
  assert chosen(f'a={folder}') == ({'a': str(folder)}, None)
  with pytest.raises(UserError, match='NAME=runs/a'):
    chosen('runs/a', 'b=runs/b')
  for given in (['a=nowhere', 'b=nowhere'], ['nowhere']):
    with pytest.raises(UserError, match='no such folder'):
      chosen(*given)


def test_no_name_is_given_twice(tmp_path):
  (tmp_path / 'adapter_config.json').write_text('{}')
  assert chosen(f'a={tmp_path}', f'b={tmp_path}') == (
      {'a': str(tmp_path), 'b': str(tmp_path)}, None)
  with pytest.raises(UserError, match='another a already'):
    chosen(f'a={tmp_path}', f'a={tmp_path}')
