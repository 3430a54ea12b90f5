"""Positions are those of a plain pass over prompt, text, and text so far."""

import jax
import numpy as np
import pytest

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.annotation.prompts import Prompt
from toolformer_jax.annotation.sample import CallSampler, check_fits
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError

PROMPT = Prompt('Calculator', 'Add calls:', ('One and one is [Calculator(1 + 1)] 2.',))
DOCUMENTS = [Document('a', 'There are 48 and 36, so 84.'), Document('b', 'Ten of 5: 50')]


@pytest.fixture(scope='module')
def model(make_eager_model):
  return make_eager_model(max_positions=1024)


def sampler(model, **tool):
  settings = AnnotationConfig(force_name=True, temperature=3.0, max_call_tokens=12)
  return CallSampler(model=model, prompt=PROMPT, tool_config=ToolConfig(**tool), config=settings,
                     syntax=DEFAULT_SYNTAX)


def logits_of(model, tokens):
  """Returns the logits after each of `tokens` by one plain pass."""
  padded = np.zeros((1, 512), np.int32)
  padded[0, :len(tokens)] = tokens
  return np.asarray(model.decoder.apply(model.variables, padded)[0][0, :len(tokens)])


def before_text(model, document):
  """Returns what the model reads before the text in which calls may start, by the paper."""
  encode = model.tokenizer.encode
  return [model.tokenizer.start_id, *encode(PROMPT.text_before_input(DEFAULT_SYNTAX)),
          *encode(document.text), *encode(PROMPT.text_before_output())]


def plain_probabilities(model, document):
  before, ids = before_text(model, document), model.tokenizer.encode(document.text)
  logits = logits_of(model, [*before, *ids])[len(before) - 1:-1]
  return np.asarray(jax.nn.softmax(logits, -1))[:, model.tokenizer.encode(' [')[0]]


def test_probabilities_and_positions_are_those_of_a_plain_pass(model):
  k = 4
  candidates, counts = sampler(model, tau_s=0.0, k=k, m=20)(DOCUMENTS)
  assert counts['positions'] == k * len(DOCUMENTS)
  assert {c.document_id for c in candidates} == {d.id for d in DOCUMENTS}
  for document in DOCUMENTS:
    expected = plain_probabilities(model, document)
    found = {c.position: c.probability for c in candidates if c.document_id == document.id}
    assert set(found) <= set(np.argsort(-expected)[:k].tolist())
    for position, probability in found.items():
      assert probability == pytest.approx(expected[position], rel=1e-3)


def test_tau_s_is_a_lower_bound(model):
  expected = np.concatenate([plain_probabilities(model, document) for document in DOCUMENTS])
  ordered = np.sort(expected)
  gap = np.diff(ordered).argmax()  # far from every probability, which is known to rounding only
  tau_s = float(ordered[gap:gap + 2].mean())
  _, counts = sampler(model, tau_s=tau_s, k=1000, m=1)(DOCUMENTS)
  assert counts['positions'] == len(ordered) - 1 - gap


def test_what_the_model_has_no_room_for_is_refused(model):
  def check(**settings):
    check_fits(model, PROMPT, AnnotationConfig(force_name=True, **settings), DEFAULT_SYNTAX)
  check(max_text_tokens=200)
  with pytest.raises(UserError, match='AnnotationConfig.max_text_tokens to at most') as refused:
    check(max_text_tokens=500)
  most = int(str(refused.value).split()[-1])
  check(max_text_tokens=most)
  with pytest.raises(UserError):
    check(max_text_tokens=most + 1)
  with pytest.raises(UserError, match='ToolConfig.prompt a shorter prompt'):
    check(max_text_tokens=8, max_call_tokens=1000)


def test_a_start_of_several_tokens_is_refused(model):
  with pytest.raises(UserError, match='must be a single token'):
    check_fits(model, PROMPT, AnnotationConfig(), CallSyntax(start=' <API>'))
