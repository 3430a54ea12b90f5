"""Law 3 in int8 and int4: a score, and a continuation, belong to their sequence."""

import jax
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.scoring import score

from .test_scoring import TOLERANCE, plain, requests


@pytest.fixture(scope='module', params=['int8', 'int4'])
def dtype(request):
  return request.param


@pytest.fixture(scope='module')
def expected(make_model, dtype):
  model = make_model().to_dtype(dtype)
  return [plain(model, request) for request in requests(0, 12)]


def test_packed_scores_are_those_of_each_sequence_alone(make_model, dtype, expected):
  model = make_model().to_dtype(dtype)
  for ours, theirs in zip(score(model, requests(0, 12)), expected, strict=True):
    np.testing.assert_allclose(ours, theirs, **TOLERANCE)


def test_neighbours_change_nothing(make_model, dtype, expected):
  got = score(make_model().to_dtype(dtype), [*requests(1, 30), *requests(0, 12)])[-len(expected):]
  for ours, theirs in zip(got, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, **TOLERANCE)


@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 2, 2)])
def test_meshes_change_nothing(make_model, dtype, expected, shape):
  model = make_model(sharding.make_mesh(*shape, devices=jax.devices()[:8])).to_dtype(dtype)
  for ours, theirs in zip(score(model, requests(0, 12)), expected, strict=True):
    np.testing.assert_allclose(ours, theirs, **TOLERANCE)


def test_continuations_do_not_depend_on_the_batch(make_model, dtype):
  model = make_model().to_dtype(dtype)
  prompts = [list(request.token_ids) for request in requests(3, 6)]
  def tokens(slots):
    made = generate(model, prompts, config=GenerationConfig(max_tokens=12),
                    engine_config=EngineConfig(slots))
    return [text.token_ids for text in made]
  assert tokens(1) == tokens(8)
