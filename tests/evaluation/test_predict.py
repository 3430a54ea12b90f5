"""A perplexity belongs to its text (law 3), and a prediction to its question."""

import functools

import jax
import numpy as np
import pytest

from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.predict import (
  generation_config,
  predict,
  rolling_windows,
  text_logprobs,
)
from toolformer_jax.evaluation.task import Question, Text
from toolformer_jax.evaluation.tasks import TASKS
from toolformer_jax.inference.config import EngineConfig, GenerationConfig

TEXTS = [Text(str(i), 'The cat sat on the mat, and the dog ran. '[:n] * 2)
         for i, n in enumerate((41, 3, 29))]


@pytest.fixture(scope='module')
def model(make_model):
  return make_model()


@functools.partial(jax.jit, static_argnums=0)
def logprobs_of(decoder, variables, tokens_1T):
  return jax.nn.log_softmax(decoder.apply(variables, tokens_1T)[0][0].astype(np.float32))


def plain(model, ids, windows=None):
  """Returns the sum of log-probabilities by a forward pass for every window, one at a time."""
  total = 0.0
  for start, end, first in windows or [(0, len(ids), 0)]:
    tokens = [model.tokenizer.start_id, *ids[start:end]]
    padded = np.array([tokens + [0] * (100 - len(tokens))])  # what comes later changes nothing
    logprobs = np.asarray(logprobs_of(model.decoder, model.variables, padded))
    total += sum(float(logprobs[j - start, ids[j]]) for j in range(first, end))
  return total


def test_a_perplexity_is_the_plain_one_alone_and_beside_others(model):
  settings = EvaluationConfig()
  together = text_logprobs(model, TEXTS, settings)
  for text, score in zip(TEXTS, together, strict=True):
    ids = model.tokenizer.encode(text.text)
    assert score.tokens == len(ids)
    assert score.logprob == pytest.approx(plain(model, ids), abs=1e-3)
  alone, = text_logprobs(model, TEXTS[1:2], settings)
  assert alone.logprob == pytest.approx(together[1].logprob, abs=1e-3)
  for few, many in zip(text_logprobs(model, TEXTS[::-1], settings)[::-1], together, strict=True):
    assert few.logprob == pytest.approx(many.logprob, abs=1e-3)


def test_without_a_start_token_the_first_token_is_not_scored(model):
  ids = model.tokenizer.encode(TEXTS[0].text)
  score, = text_logprobs(model.without_start_token(), TEXTS[:1], EvaluationConfig())
  assert score.tokens == len(ids) - 1
  logprobs_TV = logprobs_of(model.decoder, model.variables, np.array([ids]))
  expected = sum(float(logprobs_TV[i, token]) for i, token in enumerate(ids[1:]))
  assert score.logprob == pytest.approx(expected, abs=1e-3)
  assert model.tokenizer.start_id is not None  # the model itself is as it was


def test_a_long_text_is_scored_in_windows_every_token_once(model):
  settings = EvaluationConfig(window_tokens=30, stride_tokens=10)
  ids = model.tokenizer.encode(TEXTS[0].text)
  assert 60 < len(ids) <= 90
  windows, done = [], 0
  for start in range(0, len(ids), 10):
    if done < len(ids):
      windows.append((start, min(start + 30, len(ids)), done))
      done = windows[-1][1]
  score, = text_logprobs(model, TEXTS[:1], settings)
  assert score.tokens == len(ids)
  assert score.logprob == pytest.approx(plain(model, ids, windows), abs=1e-3)


@pytest.mark.parametrize(('tokens', 'window', 'stride'), [(1, 4, 4), (9, 4, 4), (9, 4, 1),
                                                          (8, 8, 2), (3, 8, 2), (0, 4, 2)])
def test_windows_cover_every_token_once(tokens, window, stride):
  text, covered = tuple(range(tokens)), []
  for request in rolling_windows(text, window, stride):
    assert len(request.token_ids) <= window
    covered += [request.token_ids[target] for target in request.target_positions]
  assert covered == list(text)


def test_no_more_words_are_decoded_than_are_looked_at(model):
  config = generation_config(TASKS['lama'], Arm('base', 'x'), GenerationConfig(),
                             EvaluationConfig())
  assert (config.max_words, config.max_tokens, config.disable_tools) == (5, 20, False)
  made = predict(model, [Question('1', 'The cat', ('x',))], config=config,
                 engine_config=EngineConfig(), syntax=DEFAULT_SYNTAX, calendar_date='2020-01-01')[0]
  assert made.failure is None and made.text == made.prediction
  assert len(made.prediction.split()) <= 5


def test_a_prompt_that_is_too_long_is_a_failure_of_its_own(model):
  how = dict(config=GenerationConfig(max_tokens=8), engine_config=EngineConfig(),
             syntax=DEFAULT_SYNTAX, calendar_date='2020-01-01')
  long, short = Question('1', 'ab ' * 60, ('x',)), Question('2', 'ab', ('x',))
  alone, = predict(model, [short], **how)
  failed, beside = predict(model, [long, short], **how)
  assert 'too many' in failed.failure and failed.text == ''
  assert beside == alone and beside.text


@pytest.mark.parametrize('arm', ['base', 'cc', 'disabled'])
@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_settings_of_calls_change_no_prediction_of_an_arm_without_calls(model, arm, temperature):
  asked = [Question(str(i), prompt, ('x',)) for i, prompt in enumerate(('The cat', 'ab', '2 + 2'))]
  changed = GenerationConfig(temperature=temperature, top_k_api=1000, max_calls=3,
                             max_call_tokens=1)
  kept, shared = (
      predict(model, asked, engine_config=EngineConfig(), syntax=DEFAULT_SYNTAX,
              config=generation_config(TASKS['svamp'], Arm(arm, 'x'), one, EvaluationConfig()),
              calendar_date='2020-01-01')
      for one in (changed, changed.without_calls))
  assert changed.without_calls == GenerationConfig(temperature=temperature)
  assert kept == shared
