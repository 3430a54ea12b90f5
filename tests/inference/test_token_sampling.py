"""Draws: which ids they may give, how often, and what they depend on."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer_jax.inference import token_sampling as token_sampling

V = 300  # more than one block of the sum, and the second one not full
LOGITS = np.random.default_rng(0).normal(0, 2, (4, V)).astype(np.float32)
# Multiples of 1/64 have exact sums, so that a set has the mass or has not.
WEIGHTS = st.lists(st.integers(0, 63), max_size=19).map(lambda ks: [*ks, *[0] * (19 - len(ks)), 64])
SHARES = st.floats(2**-20, 1 - 2**-20, width=32)

jitted = jax.jit(token_sampling.sample)
jitted_nucleus = jax.jit(token_sampling.nucleus)


def draw(logits_BV, seeds_BW, counts_B=None, temperature=1.0, top_p=1.0):
  counts_B = [0] * len(logits_BV) if counts_B is None else counts_B
  return np.asarray(jitted(
      np.asarray(logits_BV, np.float32), np.asarray(seeds_BW, np.uint32),
      np.asarray(counts_B, np.int32), np.full(len(logits_BV), temperature, np.float32),
      np.full(len(logits_BV), top_p, np.float32)))


def sorted_nucleus(weights_V, top_p):
  """Returns the same by sorting: the fewest likeliest ids with the mass, and ties of the last."""
  descending_V = np.sort(weights_V)[::-1]
  wanted = weights_V.dtype.type(top_p) * weights_V.sum()
  last = np.argmax(np.cumsum(descending_V) >= wanted)
  return np.where(weights_V >= descending_V[last], weights_V, 0)


@given(WEIGHTS, SHARES)
@settings(max_examples=300)
def test_the_nucleus_is_the_fewest_likeliest_ids_with_the_mass_and_their_ties(counts, top_p):
  weights_V = np.array(counts, np.float32) / 64
  got = np.asarray(jitted_nucleus(weights_V[None], np.float32([top_p])))[0]
  np.testing.assert_array_equal(got, sorted_nucleus(weights_V, top_p))


def test_every_row_has_a_nucleus_of_its_own():
  weights_BV = np.exp(LOGITS - LOGITS.max(-1, keepdims=True))
  together = np.asarray(jitted_nucleus(weights_BV, np.full(len(weights_BV), 0.7, np.float32)))
  for got_V, weights_V in zip(together, weights_BV, strict=True):
    np.testing.assert_array_equal(got_V, sorted_nucleus(weights_V, 0.7))


@pytest.mark.parametrize('top_p', [1e-3, 0.1, 0.5, 0.9, 0.99])
def test_the_nucleus_is_that_of_transformers(top_p):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  theirs = transformers.TopPLogitsWarper(top_p)(None, torch.from_numpy(LOGITS)).numpy()
  weights_BV = np.exp(LOGITS - LOGITS.max(-1, keepdims=True))
  ours = np.asarray(jitted_nucleus(weights_BV, np.full(len(weights_BV), top_p, np.float32)))
  np.testing.assert_array_equal(ours > 0, np.isfinite(theirs))


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6))
def test_without_temperature_the_likeliest_id_is_drawn_whatever_the_seed(seed, count):
  drawn = draw(LOGITS, [[seed, seed ^ 1]] * 4, [count] * 4, temperature=0.0, top_p=0.5)
  np.testing.assert_array_equal(drawn, np.repeat(LOGITS.argmax(-1)[:, None], 2, 1))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 10.0]))
def test_a_tiny_nucleus_is_the_likeliest_id(seed, temperature):
  drawn = draw(LOGITS, [[seed]] * 4, temperature=temperature, top_p=1e-6)
  np.testing.assert_array_equal(drawn[:, 0], LOGITS.argmax(-1))


@pytest.mark.parametrize('temperature', [1e-30, 1e-6])
def test_a_tiny_temperature_is_none(temperature):
  drawn = draw(LOGITS, [range(8)] * 4, temperature=temperature)
  np.testing.assert_array_equal(drawn, np.repeat(LOGITS.argmax(-1)[:, None], 8, 1))


@given(st.data())
@settings(max_examples=60)
def test_a_draw_depends_on_its_logits_seed_and_count_alone(data):
  rows = data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))
  counts = data.draw(st.lists(st.integers(0, 50), min_size=4, max_size=4))
  seeds = data.draw(st.lists(
      st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3), min_size=4, max_size=4))
  top_p = data.draw(st.sampled_from([0.8, 1.0]))
  together = draw(LOGITS[rows], seeds, counts, top_p=top_p)
  for b, (row, count) in enumerate(zip(rows, counts, strict=True)):
    for w, seed in enumerate(seeds[b]):
      assert draw(LOGITS[[row]], [[seed]], [count], top_p=top_p) == together[b, w]


def test_seed_and_count_both_change_what_is_drawn():
  flat = np.zeros((64, V))
  by_seed = draw(flat[:1], [range(64)])[0]
  by_count = draw(flat, [[0]] * 64, range(64))[:, 0]
  # 64 fair draws of 300 ids hold 57 different ones on average, with a deviation of 2.2.
  assert len(set(by_seed)) > 45 and len(set(by_count)) > 45


@pytest.mark.parametrize(('temperature', 'top_p'), [(0.3, 1.0), (1.0, 1.0), (2.5, 1.0), (1.0, 0.6)])
def test_draws_follow_the_distribution(temperature, top_p):
  count = 20_000
  drawn = draw(LOGITS[:1], [range(count)], temperature=temperature, top_p=top_p)[0]
  scaled_V = LOGITS[0].astype(np.float64) / temperature
  probabilities_V = np.exp(scaled_V - scaled_V.max())
  if top_p < 1:
    probabilities_V = sorted_nucleus(probabilities_V, top_p)
  probabilities_V /= probabilities_V.sum()
  observed_V = np.bincount(drawn, minlength=V) / count
  distance = np.abs(observed_V - probabilities_V).sum() / 2
  # The mean distance is at most sum(sqrt(p (1 - p) / n)) / 2, and one draw moves it by 1 / n: past
  # this bound it is with a probability of exp(-2 * 3**2) (McDiarmid).
  expected = np.sqrt(probabilities_V * (1 - probabilities_V) / count).sum() / 2
  assert distance < expected + 3 / np.sqrt(count)
  assert set(drawn) <= set(np.flatnonzero(probabilities_V))


@given(st.integers(0, 2**31), st.sets(st.integers(0, V - 1), min_size=1, max_size=20),
       st.sampled_from([0.5, 1.0]))
def test_what_must_not_be_drawn_is_not(seed, allowed, top_p):
  logits_1V = np.full((1, V), -np.inf, np.float32)
  logits_1V[0, list(allowed)] = LOGITS[0, list(allowed)]
  drawn = draw(logits_1V, [range(seed, seed + 40)], temperature=10.0, top_p=top_p)
  assert set(drawn[0]) <= allowed


def test_an_id_of_no_weight_is_not_drawn_where_sums_round():
  # Whatever a seed's share is, and these are the ones at which a running sum rounds up or down.
  rng, invert = np.random.default_rng(0), jax.jit(token_sampling._invert)
  wrong = []
  for _ in range(20):
    weights_V = np.where(rng.random(V) < 0.5, rng.random(V), 0).astype(np.float32)
    ends = np.cumsum(weights_V.astype(np.float64)) / weights_V.sum(dtype=np.float64)
    steps = np.floor(ends * 2**23)[:, None] + np.arange(-2, 3)
    shares_W = (np.clip(steps, 0, 2**23 - 1) / 2**23).astype(np.float32).ravel()
    drawn_W = np.asarray(invert(weights_V[None], shares_W[None]))[0]
    wrong += [int(i) for i in drawn_W if i >= V or weights_V[i] == 0]
  assert wrong == []


def test_rows_of_other_batches_are_drawn_alike():
  seeds = np.arange(16)[:, None]
  rows = np.arange(16) % 4
  alone = np.array([draw(LOGITS[[row]], [seed])[0] for row, seed in zip(rows, seeds, strict=True)])
  for order in (np.arange(16), np.arange(16)[::-1]):
    np.testing.assert_array_equal(draw(LOGITS[rows[order]], seeds[order]), alone[order])
