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
  aggregate_scores,
  error_breakdown,
)
from toolformer_jax.evaluation.tasks import TASKS

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


def test_a_call_counts_with_and_without_a_result():
  """The paper's Table 9 divides questions by whether the model called a tool."""
  records = [{'group': '', 'correct': correct, 'calls': [{'tool': 'QA', 'result': result}
                                                         for result in results]}
             for correct, results in ((True, ['a']), (False, [None]), (True, [None]), (True, []))]
  score, = aggregate_scores(TASKS['webquestions'], 'toolformer', records, SETTINGS)
  assert (score.called, score.when_called, score.when_not_called) == (
      75.0, pytest.approx(200 / 3), 100.0)
  assert score.tool_use == {'QA': 25.0} and score.with_call == 100.0
  assert score.without_call == pytest.approx(200 / 3)
