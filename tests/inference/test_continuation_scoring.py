"""Continuations after shared prompts have the log-probabilities that they have alone."""

import math

import jax
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.inference import continuation_scoring
from toolformer_jax.inference.continuation_scoring import score_continuations
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.adapter_config import PrefixConfig

PROMPTS = ['Where is my card?\nIntent:', 'x', 'I paid too much for the flight to Rome, and'
           ' now I want my money back as soon as it can be done\nIntent:', 'Hi\nIntent:']
LABELS = [' lost card\n', ' a\n', ' request a refund of a payment\n']


def _ids(model, texts):
  return [model.tokenizer.encode(text) for text in texts]


def _alone(model, prompts, labels):
  requests = [ScoreRequest(tuple(prompt), tuple(label), tuple(range(len(label))))
              for prompt in prompts for label in labels]
  sums = [math.fsum(values.tolist()) for values in score(model, requests)]
  return np.array(sums).reshape(len(prompts), len(labels))


@pytest.mark.parametrize('options', [
  {}, {'positions': 'learned', 'rotary_dim': 0}, {'adapter': PrefixConfig(num_virtual_tokens=3)},
  {'sliding_window': 16, 'global_every': 2},
], ids=str)
def test_they_are_those_of_scoring_each_sequence(make_model, options):
  model = make_model(max_positions=256, **options)
  prompts, labels = _ids(model, PROMPTS), _ids(model, LABELS)
  np.testing.assert_allclose(score_continuations(model, prompts, labels),
                             _alone(model, prompts, labels), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize('scoring_tokens', [1, 300])
def test_they_do_not_depend_on_the_batch(make_model, scoring_tokens):
  model = make_model(max_positions=256)
  prompts, labels = _ids(model, PROMPTS), _ids(model, LABELS)
  found = score_continuations(model, prompts, labels, scoring_tokens=scoring_tokens)
  for prompt, scores in zip(prompts, found, strict=True):
    np.testing.assert_allclose(score_continuations(model, [prompt], labels)[0], scores, atol=1e-4)


def test_they_are_the_same_on_a_mesh(make_model):
  def scores(mesh):
    model = make_model(mesh, max_positions=256)
    return score_continuations(model, _ids(model, PROMPTS), _ids(model, LABELS))
  one = sharding.make_mesh(devices=jax.devices()[:1])
  np.testing.assert_allclose(scores(sharding.make_mesh(2, 2, 2)), scores(one), atol=1e-4)


def test_a_prompt_is_computed_once(make_model, monkeypatch):
  model, computed = make_model(max_positions=256), []
  inner = continuation_scoring._target_logprobs
  def counted(decoder, variables, prompts_PS, lengths_P, last_P, targets_LT):
    computed.append(int(lengths_P.sum()) + len(prompts_PS) * targets_LT.size)
    return inner(decoder, variables, prompts_PS, lengths_P, last_P, targets_LT)
  monkeypatch.setattr(continuation_scoring, '_target_logprobs', counted)
  prompt, labels = _ids(model, PROMPTS)[2], _ids(model, LABELS) * 20
  score_continuations(model, [prompt], labels)
  assert sum(computed) < len(labels) * len(prompt) / 2  # of what each sequence alone would take
