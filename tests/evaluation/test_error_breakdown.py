"""Every prediction for a word problem has one outcome."""

import pytest

from toolformer_jax.evaluation.answer_matching import FirstNumber
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.scores import (
  CORRECT,
  EXTRACTION,
  IGNORED,
  NO_CALL,
  NO_RESULT,
  OUTCOMES,
  WRONG_ARGUMENT,
  error_breakdown,
)

SETTINGS = EvaluationConfig()


@pytest.mark.parametrize(('prediction', 'results', 'outcome'), [
    (' 51 dollars.', ['51'], CORRECT),
    (' 51 dollars.', [], CORRECT),
    (' 12 dollars.', [], NO_CALL),
    (' 12 dollars.', [None], NO_RESULT),
    (' 1900 dollars.', ['1900'], WRONG_ARGUMENT),
    (' 12 dollars.', ['51.00'], IGNORED),
    (' 76 less 25 is 51.', ['51'], EXTRACTION),
    (' 12 dollars.', [None, '51'], IGNORED),
])
def test_a_prediction_has_one_outcome(prediction, results, outcome):
  record = {'prediction': prediction, 'answers': ['51.0'],
            'calls': [{'result': result} for result in results]}
  record['correct'] = FirstNumber().match(prediction, ['51.0'], SETTINGS).correct
  counts = error_breakdown([record, record], SETTINGS)
  assert counts == dict.fromkeys(OUTCOMES, 0) | {outcome: 2}
