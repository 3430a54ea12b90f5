"""The real model against numbers that tests/parity/reference.py recorded from transformers."""

import hashlib
import json
import pathlib

import jax
import numpy as np
import pytest

from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.sharding import make_mesh

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'smollm2_135m.json'


@pytest.fixture(scope='module')
def model(smollm2_path):
  return load_pretrained(str(smollm2_path), mesh=make_mesh(devices=jax.devices()[:1]))


@pytest.fixture(scope='module')
def golden(smollm2_path):
  """Golden entries with their texts, which are found again by their hash."""
  by_hash = {hashlib.sha256(d.text.encode()).hexdigest(): d.text
             for d in read_corpus('wikipedia-sample')}
  return [(by_hash[entry['sha256']], entry) for entry in json.loads(GOLDEN.read_text('utf-8'))]


def test_log_probabilities(model, golden):
  assert len(golden) == 20
  encoded = [tuple(model.tokenizer.encode(text)) for text, _ in golden]
  assert [len(ids) for ids in encoded] == [entry['ids'] for _, entry in golden]
  scored = score(model, [ScoreRequest((), ids, tuple(range(len(ids)))) for ids in encoded])
  for logprobs, (_, entry) in zip(scored, golden, strict=True):
    np.testing.assert_allclose(logprobs, entry['logprobs'], atol=2e-3)


def test_greedy_continuations(model, golden):
  some = [(text, entry['greedy']) for text, entry in golden if 'greedy' in entry]
  prompts = [model.tokenizer.encode(text)[:19] for text, _ in some]
  generated = generate(model, prompts, config=GenerationConfig(max_tokens=64))
  for continuation, (_, expected) in zip(generated, some, strict=True):
    ended = next((i for i, t in enumerate(expected) if t in model.tokenizer.end_ids), 64)
    assert continuation.token_ids == expected[:ended]
