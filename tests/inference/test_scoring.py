"""Law 3: a score belongs to its sequence, whatever is computed beside it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.inference.scoring import ScoreRequest, score

TOLERANCE = dict(atol=1e-4, rtol=0)


def requests(seed: int, count: int) -> list[ScoreRequest]:
  """Returns requests of many lengths, some with equal sequences."""
  rng = np.random.default_rng(seed)
  ids = lambda size: tuple(rng.integers(0, 250, size).tolist())  # noqa: E731
  made = []
  for _ in range(count):
    prefix, text = ids(rng.integers(0, 20)), ids(rng.integers(1, 60))
    size = int(rng.integers(1, len(text) + 1))
    made.append(ScoreRequest(prefix, text, tuple(sorted(rng.permutation(len(text))[:size]))))
  return made + made[:3]


def plain(model, request: ScoreRequest) -> np.ndarray:
  """Returns the same log-probabilities by one pass over the one sequence, nothing packed."""
  tokens = [model.tokenizer.start_id, *request.prefix_ids, *request.token_ids]
  tokens_1T = np.zeros((1, 512), np.int32)  # one program for all; causality hides what is behind
  tokens_1T[0, :len(tokens)] = tokens
  logprobs = np.asarray(_logprobs(model.decoder, model.variables, tokens_1T))
  offset = len(request.prefix_ids)
  return np.array([logprobs[offset + j, request.token_ids[j]]
                   for j in request.target_positions])


@functools.partial(jax.jit, static_argnums=0)
def _logprobs(decoder, variables, tokens_1T):
  return jax.nn.log_softmax(decoder.apply(variables, tokens_1T)[0][0].astype(jnp.float32))


@pytest.fixture(scope='module')
def expected(make_model):
  model = make_model()
  return [plain(model, request) for request in requests(0, 12)]


def test_packed_scores_are_those_of_each_sequence_alone(make_model, expected):
  got = score(make_model(), requests(0, 12))
  for ours, theirs in zip(got, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, **TOLERANCE)


def test_order_and_neighbours_change_nothing(make_model, expected):
  model, wanted = make_model(), requests(0, 12)
  others = requests(1, 30)
  order = np.random.default_rng(2).permutation(len(wanted))
  got = score(model, [*others[:15], *(wanted[i] for i in order), *others[15:]])
  for i, ours in zip(order, got[15:15 + len(wanted)], strict=True):
    np.testing.assert_allclose(ours, expected[i], **TOLERANCE)


def test_another_bucket_changes_nothing(make_model, expected):
  # A long neighbour is in rows of 512, and makes the batches of the others no different.
  long = ScoreRequest((), tuple(range(250)) * 2, (499,))
  got = score(make_model(max_positions=1024), [long, *requests(0, 12)])
  np.testing.assert_allclose(got[0], plain(make_model(), long), **TOLERANCE)
  for ours, theirs in zip(got[1:], expected, strict=True):
    np.testing.assert_allclose(ours, theirs, **TOLERANCE)


@pytest.mark.parametrize('shape', [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_meshes_change_nothing(make_model, expected, shape):
  model = make_model(sharding.make_mesh(*shape, devices=jax.devices()[:8]))
  for ours, theirs in zip(score(model, requests(0, 12)), expected, strict=True):
    np.testing.assert_allclose(ours, theirs, **TOLERANCE)


def test_nothing_asked_nothing_computed(make_model):
  assert score(make_model(), []) == []
  assert score(make_model(), [ScoreRequest((), (1, 2), ())])[0].shape == (0,)
