"""Branches share rows for as long as they are equal, and wait for rows: no text depends on it."""


import jax
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.inference import branch_sampling, shared_prefix

RNG = np.random.default_rng(0)
PROMPT = RNG.integers(0, 250, 21).tolist()
DOCUMENTS = [RNG.integers(0, 250, size).tolist() for size in (9, 30, 17)]
OPENING = (7, 11)
SEEDS = 20
BRANCHES = [branch_sampling.Branch(document, visible, seed)
            for document, visible in ((0, 3), (2, 8), (1, 30)) for seed in range(SEEDS)]


def prefill_all(model):
  prompt = shared_prefix.prefill_prompt(model, PROMPT)
  watched = [range(1, len(document)) for document in DOCUMENTS]
  return model, shared_prefix.prefill_documents(model, prompt, DOCUMENTS, 5, watched)


@pytest.fixture(scope='module')
def prefilled(make_model):
  return prefill_all(make_model(max_positions=512))


def sample(model, computed, branches, temperature=0.2, **limits):
  """At this temperature most branches of a place share their first tokens, then part."""
  settings = branch_sampling.BranchConfig(
      opening=OPENING, first_allowed_V=np.ones(model.config.vocab_size, bool), max_tokens=6,
      temperature=temperature, top_p=1.0, is_finished=lambda text: len(text) >= 4)
  return branch_sampling.sample_branches(model, computed, branches, settings, **limits)


@pytest.fixture(scope='module')
def texts(prefilled):
  return sample(*prefilled, BRANCHES)


@pytest.fixture
def decoded(monkeypatch):
  """The number of rows at work in each call of the program that decodes."""
  working, decode = [], branch_sampling.sample_step
  def recorded(decoder, variables, prompt, documents, cache, rows, *others):
    working.append(int((np.asarray(rows.visible_B) > 0).sum()))
    return decode(decoder, variables, prompt, documents, cache, rows, *others)
  monkeypatch.setattr(branch_sampling, 'sample_step', recorded)
  return working


def test_samples_of_one_place_are_those_of_each_alone(prefilled, texts):
  assert texts == [sample(*prefilled, [branch])[0] for branch in BRANCHES]
  places = [texts[i:i + SEEDS] for i in range(0, len(texts), SEEDS)]
  assert all(2 < len(set(of_place)) < SEEDS for of_place in places)  # some parted, some did not


@pytest.mark.parametrize('rows', [1, 2, 16])
def test_branches_that_wait_for_a_row_are_the_same(prefilled, texts, decoded, rows):
  assert sample(*prefilled, BRANCHES, sampling_rows=rows) == texts
  assert max(decoded) == rows


def test_the_order_of_branches_changes_nothing(prefilled, texts):
  order = np.random.default_rng(0).permutation(len(BRANCHES))
  shuffled = sample(*prefilled, [BRANCHES[i] for i in order], sampling_rows=2)
  assert shuffled == [texts[i] for i in order]


def test_equal_branches_are_computed_once(prefilled, decoded):
  for seeds in (1, 50):
    branches = [branch_sampling.Branch(1, 12, seed) for seed in range(seeds)]
    same = sample(*prefilled, branches, temperature=0.0)
    assert len(set(same)) == 1 and same[0]
  half = len(decoded) // 2
  assert decoded[:half] == decoded[half:] == [1] * half


def test_branches_share_a_row_until_they_differ(prefilled, texts, decoded):
  assert sample(*prefilled, BRANCHES) == texts
  assert decoded[:len(OPENING)] == [3] * len(OPENING)  # a row for each place
  assert decoded[len(OPENING)] > 3
  unshared = sum(len(OPENING) + len(text) - 1 for text in texts)
  assert sum(decoded) < unshared


@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 2, 2)])
def test_meshes_change_nothing(make_model, texts, shape):
  mesh = sharding.make_mesh(*shape, devices=jax.devices()[:8])
  model, computed = prefill_all(make_model(mesh, max_positions=512))
  assert sample(model, computed, BRANCHES) == texts
