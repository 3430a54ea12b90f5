"""Sampled generation, on a random model: a text depends on its prompt and seed alone."""

import functools

import jax
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.token_sampling import sample
from toolformer_jax.tools.executor import Executor
from toolformer_jax.tools.function import tool

NAMES = [f'text {i}' * (i + 1) for i in range(6)]


def run(model, prompts, seeds=None, on_text=None, slots=4, **params):
  params = {'temperature': 0.7, 'max_tokens': 12, 'top_k_api': 1, **params}
  with Executor([tool(lambda argument: 'XY', name='Up')]) as executor:
    return generate(
        model, [model.tokenizer.encode(prompt) for prompt in prompts], executor=executor,
        seeds=seeds, config=GenerationConfig(**params), engine_config=EngineConfig(slots),
        on_text=on_text)


@pytest.fixture(scope='module')
def sampled(make_model):
  return functools.partial(run, make_model())


@pytest.mark.parametrize('changes', [{}, {'top_p': 0.5}, {'top_k_api': 10**6}])
def test_a_sampled_text_depends_on_its_prompt_and_seed_alone(sampled, changes):
  expected = [sampled([name], [i], **changes)[0] for i, name in enumerate(NAMES)]
  assert sampled(NAMES, range(6), **changes) == expected
  order = [4, 2, 0, 5, 1, 3]
  assert sampled([NAMES[i] for i in order], order, slots=2, **changes) == [
      expected[i] for i in order]


def test_every_token_is_drawn_from_the_logits_of_a_plain_pass(make_model):
  model, seed = make_model(), 11
  prompt = model.tokenizer.encode(NAMES[0])
  how = GenerationConfig(max_tokens=20, temperature=0.7, top_p=0.9)
  [generated] = generate(model, [prompt], config=how, seeds=[seed])
  tokens_1T = np.zeros((1, 64), np.int32)  # causality hides what is behind
  before = [model.tokenizer.start_id, *prompt]
  tokens_1T[0, :len(before) + 20] = [*before, *generated.token_ids]
  logits_NV = _logits(model.decoder, model.variables, tokens_1T)[len(before) - 1:][:20]
  counts, ones = np.arange(20, dtype=np.int32), np.ones((20, 1), np.uint32)
  drawn = sample(logits_NV, seed * ones, counts, np.full(20, 0.7, np.float32),
                 np.full(20, 0.9, np.float32))
  assert generated.token_ids == drawn[:, 0].tolist()


@functools.partial(jax.jit, static_argnums=0)
def _logits(decoder, variables, tokens_1T):
  return decoder.apply(variables, tokens_1T)[0][0]


def test_samples_differ_by_seed(sampled):
  texts = [generated.text for generated in sampled(NAMES[:1] * 20, range(20))]
  assert len(set(texts)) == 20


def test_seeds_count_up_from_the_settings(sampled):
  assert sampled(NAMES[:3], seed=7) == sampled(NAMES[:3], [7, 8, 9])


def test_a_tiny_nucleus_is_greedy(sampled):
  assert sampled(NAMES, range(6), top_p=1e-6) == sampled(NAMES, range(6), temperature=0.0)


def collect(pieces):
  return lambda request, piece: pieces.setdefault(request, []).append(piece)


def test_pieces_of_sampled_texts_make_them_up(sampled):
  pieces = {}
  texts = sampled(NAMES, range(6), max_tokens=30, on_text=collect(pieces))
  assert [''.join(pieces[i]) for i in range(6)] == [generated.text for generated in texts]
  assert all(len(parts) > 2 and all(parts) for parts in pieces.values())


def test_a_stopped_text_makes_room_for_the_next(sampled):
  free = sampled(NAMES, range(6), max_tokens=30)
  stop = (free[0].text[3], free[3].text[5])
  pieces = {}
  stopped = sampled(NAMES, range(6), max_tokens=30, slots=1, stop=stop, on_text=collect(pieces))
  for i, (whole, short) in enumerate(zip(free, stopped, strict=True)):
    ends = [whole.text.find(text) for text in stop if text in whole.text]
    assert short.text == whole.text[:min(ends, default=None)] == ''.join(pieces.get(i, []))
  assert len(stopped[0].text) <= 3


@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 2, 2)])
def test_meshes_change_nothing(make_model, shape):
  # One CPU decodes without a loop over layers, a mesh with one.
  meshes = (None, sharding.make_mesh(*shape, devices=jax.devices()[:8]))
  for temperature in (0.0, 0.7):
    one, eight = (run(make_model(mesh), NAMES, temperature=temperature, max_tokens=10)
                  for mesh in meshes)
    assert one == eight
