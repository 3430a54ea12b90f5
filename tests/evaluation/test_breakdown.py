"""Every wrong answer to a word problem has one reason."""

import pytest

from toolformer_jax.evaluation.answer_matching import FirstNumber
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.scores import (
  EXTRACTION,
  IGNORED,
  NO_CALL,
  NO_RESULT,
  OUTCOMES,
  RIGHT,
  WRONG_ARGUMENT,
  breakdown,
)

SETTINGS = EvaluationConfig()


@pytest.mark.parametrize(('prediction', 'results', 'kind'), [
    (' 51 dollars.', ['51'], RIGHT),
    (' 51 dollars.', [], RIGHT),
    (' 12 dollars.', [], NO_CALL),
    (' 12 dollars.', [None], NO_RESULT),
    (' 1900 dollars.', ['1900'], WRONG_ARGUMENT),
    (' 12 dollars.', ['51.00'], IGNORED),
    (' 76 less 25 is 51.', ['51'], EXTRACTION),
    (' 12 dollars.', [None, '51'], IGNORED),
])
def test_a_wrong_answer_has_one_reason(prediction, results, kind):
  record = {'prediction': prediction, 'answers': ['51.0'],
            'calls': [{'result': result} for result in results]}
  record['correct'] = FirstNumber().judge(prediction, ['51.0'], SETTINGS).correct
  counts = breakdown([record, record], SETTINGS)
  assert counts == dict.fromkeys(OUTCOMES, 0) | {kind: 2}
