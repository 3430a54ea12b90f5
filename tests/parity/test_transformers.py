"""Ours against transformers, live, on the same GGUF file and real texts (`make parity`)."""

import importlib.util
import pathlib
import re

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.inference.continuation import GenerationSettings
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.sharding import make_mesh

_spec = importlib.util.spec_from_file_location(
    'reference', pathlib.Path(__file__).with_name('reference.py'))
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


@pytest.fixture(scope='session')
def theirs(smollm2_path):
  return reference.Transformers(smollm2_path)


@pytest.fixture(scope='session')
def ours(smollm2_path):
  return load_pretrained(str(smollm2_path), mesh=make_mesh(devices=jax.devices()[:1]))


@pytest.fixture(scope='session')
def texts(smollm2_path):
  return [document.text for document in reference.texts()]


def test_log_probabilities_on_real_texts(ours, theirs, texts):
  worst = 0.0
  encoded = [tuple(ours.tokenizer.encode(text)) for text in texts]
  scored = score(ours, [ScoreRequest((), ids, tuple(range(len(ids)))) for ids in encoded])
  for ids, logprobs in zip(encoded, scored, strict=True):
    expected = theirs.logprobs([ours.tokenizer.start_id, *ids])
    worst = max(worst, float(np.abs(logprobs - expected).max()))
  print(f'largest difference of a log-probability: {worst:.2e}')
  assert worst < 2e-3


def test_greedy_continuations(ours, theirs, texts):
  for text in texts[:3]:
    prompt = ours.tokenizer.encode(text)[:19]
    expected = theirs.greedy([ours.tokenizer.start_id, *prompt], 64)
    ended = next((i for i, token in enumerate(expected) if token in ours.tokenizer.end_ids), 64)
    settings = GenerationSettings(max_tokens=64)
    assert generate(ours, [prompt], settings=settings)[0].tokens == expected[:ended]


def same_rule(text):
  """Tells whether transformers' reading of the GGUF file should agree with ours on `text`.

  Its conversion leaves out that SmolLM2 splits every digit off first. That shows only where blanks
  stand before a digit, or where digits are of another script: no merge joins the others anyway.
  """
  foreign = any(c.isnumeric() and c not in '0123456789' for c in text)
  return not foreign and not re.search(r'\s{2,}\d', text)


@given(st.text())
def test_tokenizer_on_any_text(ours, theirs, text):
  hypothesis.assume(same_rule(text) and '<' not in text)  # they read special tokens in a text
  # Surrogates are no text; special tokens in a text are just letters to us.
  text = text.encode('utf-8', 'ignore').decode('utf-8')
  assert ours.tokenizer.encode(text) == theirs.encode(text)


def test_tokenizer_on_real_texts(ours, theirs, data_dir):
  checked = 0
  for path in sorted((data_dir / 'flores200').glob('flores-dev.*-en.*')):
    for line in path.read_text('utf-8').splitlines()[:30]:
      assert ours.tokenizer.decode(ours.tokenizer.encode(line)) == line
      if same_rule(line):
        assert ours.tokenizer.encode(line) == theirs.encode(line)
        checked += 1
  assert checked > 300
