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


def test_it_can_be_switched_off(serve, generated):
  with serve(limits=ServingConfig(prefix_cache_gib=0.0)) as server:
    for prompt in PROMPTS:
      text = server.post('completions', prompt=prompt).json()['choices'][0]['text']
      assert text == generated(prompt).text
    assert hits(server) == {'queries': 0.0, 'hits': 0.0}
