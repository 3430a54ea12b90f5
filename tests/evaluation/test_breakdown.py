"""Every wrong answer to a word problem has one reason."""

import pytest

from toolformer_jax.evaluation.answer_matching import Rule, judge
from toolformer_jax.evaluation.breakdown import (
  EXTRACTION,
  IGNORED,
  KINDS,
  NO_CALL,
  NO_RESULT,
  RIGHT,
  WRONG_ARGUMENT,
  breakdown,
)
from toolformer_jax.evaluation.config import EvaluationConfig

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
  record['correct'] = judge(Rule(words=0), prediction, ['51.0'], SETTINGS).correct
  counts = breakdown([record, record], SETTINGS)
  assert counts == dict.fromkeys(KINDS, 0) | {kind: 2}
