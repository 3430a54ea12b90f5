"""Branches that share a prompt and documents are what plain decoding would give."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from toolformer_jax.inference import branch_sampling, shared_prefix

RNG = np.random.default_rng(0)
PROMPT = RNG.integers(0, 250, 21).tolist()
DOCUMENTS = [RNG.integers(0, 250, size).tolist() for size in (9, 30, 17)]
OPENING = (7, 11)
WATCHED = [range(1, len(document)) for document in DOCUMENTS]


@pytest.fixture(scope='module')
def prefilled(make_model):
  model = make_model(max_positions=512)
  prompt = shared_prefix.prefill_prompt(model, PROMPT)
  return model, shared_prefix.prefill_documents(model, prompt, DOCUMENTS, 5, WATCHED)


def settings(model, temperature=0.0, max_tokens=10, finished=lambda text: False, first=None,
             top_p=1.0):
  allowed = np.ones(model.config.vocab_size, bool) if first is None else first
  return branch_sampling.BranchConfig(OPENING, allowed, max_tokens, temperature, top_p, finished)


def logits_after(model, tokens):
  """Returns the next token's logits by one plain pass; causality hides the padding."""
  tokens_1T = np.zeros((1, 96), np.int32)
  tokens_1T[0, :len(tokens)] = tokens
  return _logits(model.decoder, model.variables, tokens_1T)[len(tokens) - 1]


@functools.partial(jax.jit, static_argnums=0)
def _logits(decoder, variables, tokens_1T):
  return decoder.apply(variables, tokens_1T)[0][0]


def test_watched_probabilities_are_those_of_a_plain_pass(prefilled):
  model, computed = prefilled
  for document, watched, logprobs in zip(DOCUMENTS, WATCHED, computed.logprobs, strict=True):
    for i, logprob in zip(watched, logprobs, strict=True):
      logits = logits_after(model, [model.tokenizer.start_id, *PROMPT, *document[:i]])
      np.testing.assert_allclose(logprob, jax.nn.log_softmax(logits)[5], atol=1e-4)


def test_documents_do_not_depend_on_the_others(prefilled):
  model, computed = prefilled
  order = [0, 2, 0, 1, 1, 2, 2, 0, 0, 2, 1]  # more than are computed together
  many = shared_prefix.prefill_documents(model, computed.prompt, [DOCUMENTS[d] for d in order], 5,
                                   [WATCHED[d] for d in order])
  for d, logprobs in zip(order, many.logprobs, strict=True):
    np.testing.assert_allclose(logprobs, computed.logprobs[d], atol=1e-4)
  how = settings(model, finished=lambda text: len(text) >= 6)
  texts = branch_sampling.sample_branches(
      model, many, [branch_sampling.Branch(row, 5, 0) for row in range(len(order))], how)
  alone = branch_sampling.sample_branches(
      model, computed, [branch_sampling.Branch(d, 5, 0) for d in range(3)], how)
  assert texts == [alone[d] for d in order]


def test_greedy_branches_are_plain_greedy_decoding(prefilled):
  model, computed = prefilled
  places = ((0, 3), (1, 30), (1, 1), (2, 8))
  branches = [branch_sampling.Branch(d, visible, 0) for d, visible in places]
  texts = branch_sampling.sample_branches(
      model, computed, branches, settings(model, finished=lambda text: len(text) >= 6))
  for branch, text in zip(branches, texts, strict=True):
    tokens = [model.tokenizer.start_id, *PROMPT, *DOCUMENTS[branch.document][:branch.visible],
              *OPENING]
    new = []
    while len(model.tokenizer.decode(new)) < 6:
      new.append(int(logits_after(model, [*tokens, *new]).argmax()))
    assert text == model.tokenizer.decode(new)


def test_a_branch_does_not_depend_on_the_others(prefilled):
  model, computed = prefilled
  how = settings(model, temperature=1.0, finished=lambda text: len(text) >= 8)
  branches = [branch_sampling.Branch(i % 3, 1 + i % 7, seed=i) for i in range(200)]
  together = branch_sampling.sample_branches(model, computed, branches, how)
  for i in (0, 1, 50, 123, 199):
    assert branch_sampling.sample_branches(model, computed, [branches[i]], how) == [together[i]]


def test_draws_follow_the_distribution(prefilled):
  model, computed = prefilled
  branches = [branch_sampling.Branch(0, 4, seed=i) for i in range(3000)]
  how = settings(model, temperature=0.3, max_tokens=1, finished=lambda text: bool(text))
  drawn = branch_sampling.sample_branches(model, computed, branches, how)
  tokens = [model.tokenizer.start_id, *PROMPT, *DOCUMENTS[0][:4], *OPENING]
  probabilities = np.asarray(jax.nn.softmax(logits_after(model, tokens) / 0.3))
  texts = [model.tokenizer.decode([i]) for i in range(len(probabilities))]
  expected, observed = {}, {}
  for text, probability in zip(texts, probabilities, strict=True):
    expected[text] = expected.get(text, 0) + probability
  for text in drawn:
    observed[text] = observed.get(text, 0) + 1 / len(drawn)
  distance = sum(abs(expected[text] - observed.get(text, 0)) for text in expected) / 2
  # Twice what 3,000 fair draws from this distribution are away from it on average.
  fair = np.random.default_rng(0).multinomial(3000, probabilities / probabilities.sum()) / 3000
  assert distance < 2 * np.abs(fair - probabilities).sum() / 2


def test_only_allowed_ids_come_first(prefilled):
  model, computed = prefilled
  first = np.zeros(model.config.vocab_size, bool)
  first[[40, 41]] = True
  branches = [branch_sampling.Branch(0, 4, seed=i) for i in range(40)]
  how = settings(model, temperature=5.0, max_tokens=1, finished=bool, first=first)
  assert set(branch_sampling.sample_branches(model, computed, branches, how)) == {
      model.tokenizer.decode([40]), model.tokenizer.decode([41])}


def test_unfinished_branches_have_no_text(prefilled):
  model, computed = prefilled
  assert branch_sampling.sample_branches(
      model, computed, [branch_sampling.Branch(0, 2, 0)], settings(model)) == [None]


def test_draws_are_from_the_nucleus(prefilled):
  model, computed = prefilled
  tokens = [model.tokenizer.start_id, *PROMPT, *DOCUMENTS[0][:4], *OPENING]
  probabilities = np.asarray(jax.nn.softmax(logits_after(model, tokens)), np.float64)
  likeliest = np.argsort(-probabilities)
  size = 1 + int(np.argmax(np.cumsum(probabilities[likeliest]) >= 0.2))
  branches = [branch_sampling.Branch(0, 4, seed) for seed in range(40 * size)]
  how = settings(model, temperature=1.0, max_tokens=1, finished=bool, top_p=0.2)
  drawn = branch_sampling.sample_branches(model, computed, branches, how)
  # Each of them is drawn at least once but with a probability below size * exp(-20).
  assert probabilities[likeliest[:size]].min() > 0.5 / size / 5
  assert set(drawn) == {model.tokenizer.decode([i]) for i in likeliest[:size]}


def test_a_tiny_nucleus_is_greedy(prefilled):
  model, computed = prefilled
  branches = [branch_sampling.Branch(i % 3, 1 + i % 7, seed=i) for i in range(20)]
  how = settings(model, temperature=1.0, top_p=1e-6, finished=lambda text: len(text) >= 6)
  greedy = dataclasses.replace(how, temperature=0.0, top_p=1.0)
  tiny, plain = (branch_sampling.sample_branches(model, computed, branches, config)
                 for config in (how, greedy))
  assert tiny == plain


def test_no_branches_no_texts(prefilled):
  model, computed = prefilled
  assert branch_sampling.sample_branches(model, computed, [], settings(model)) == []
