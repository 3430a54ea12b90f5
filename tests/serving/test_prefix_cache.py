"""Prompts that begin alike share their beginning, and the server says how much of it."""

import re

import httpx2

from toolformer_jax.serving.config import ServingConfig

BEGIN = 'A cat sat on a mat. ' * 8  # more than two blocks
PROMPTS = [BEGIN + end for end in ('ab is', 'cd is', 'ab is')]


def hits(server):
  metrics = httpx2.get(f'{server.url}/metrics').text
  return {name: float(value) for name, value in re.findall(
      r'^vllm:prefix_cache_(queries|hits)_total\{.*\} (\S+)', metrics, re.MULTILINE)}


def test_texts_are_those_of_generate_and_hits_are_counted(serve, generated):
  with serve() as server:
    for number, prompt in enumerate(PROMPTS):
      text = server.post('completions', prompt=prompt).json()['choices'][0]['text']
      assert text == generated(prompt).text
      assert hits(server)['hits'] == 128 * number
    assert hits(server)['queries'] > 3 * len(BEGIN) / 2


def test_usage_tells_how_many_tokens_of_a_prompt_were_cached(serve):
  chat = [{'role': 'user', 'content': BEGIN}]
  with serve() as server:
    create = server.client().completions.create
    for cached in (0, 128):
      usage = create(model='tiny', prompt=BEGIN + 'ab is').usage
      assert usage.prompt_tokens_details.cached_tokens == cached
      assert usage.prompt_tokens > 128
    *_, last = create(model='tiny', prompt=BEGIN + 'cd is', stream=True,
                      stream_options={'include_usage': True})
    assert last.usage.prompt_tokens_details.cached_tokens == 128
    usage = create(model='tiny', prompt=[BEGIN + 'ab is', 'xy', BEGIN + 'xy'], n=2).usage
    assert usage.prompt_tokens_details.cached_tokens == 2 * 128  # a prompt of two texts counts once
    assert create(model='tiny', prompt=BEGIN, max_tokens=0, echo=True
                  ).usage.prompt_tokens_details.cached_tokens == 0  # it is scored, not continued
    before = hits(server)['hits']
    for cached in (0, 128):
      usage = server.client().chat.completions.create(
          model='tiny', messages=chat, max_tokens=6).usage
      assert usage.prompt_tokens_details.cached_tokens == cached
    usage = server.client().responses.create(model='tiny', input=BEGIN, max_output_tokens=6).usage
    assert usage.input_tokens_details.cached_tokens == 128
    assert hits(server)['hits'] - before == 2 * 128


def test_it_can_be_switched_off(serve, generated):
  with serve(limits=ServingConfig(prefix_cache_gib=0.0)) as server:
    for prompt in PROMPTS:
      answer = server.post('completions', prompt=prompt).json()
      assert answer['choices'][0]['text'] == generated(prompt).text
      assert answer['usage']['prompt_tokens_details'] == {'cached_tokens': 0}
    assert hits(server) == {'queries': 0.0, 'hits': 0.0}
