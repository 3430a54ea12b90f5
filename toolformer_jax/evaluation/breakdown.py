"""Where word problems with a calculator go wrong."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from toolformer_jax.evaluation.answer_matching import numbers
from toolformer_jax.evaluation.config import EvaluationConfig

RIGHT, NO_CALL, NO_RESULT, WRONG_ARGUMENT, IGNORED, EXTRACTION = KINDS = (
    'right', 'no call', 'call without a result', 'wrong argument', 'right result, not used',
    'right number, not the one that counts')


def breakdown(records: Sequence[dict[str, Any]], settings: EvaluationConfig) -> dict[str, int]:
  """Returns how many of the judged predictions are of each of `KINDS`."""
  counts = Counter(_kind(record, settings) for record in records)
  return {kind: counts[kind] for kind in KINDS}


def _kind(record: dict[str, Any], settings: EvaluationConfig) -> str:
  if record['correct']:
    return RIGHT
  results = [call['result'] for call in record['calls'] if call['result'] is not None]
  if not results:
    return NO_RESULT if record['calls'] else NO_CALL
  wanted = [value for answer in record['answers'] for value in numbers(answer)[:1]]
  def has(text: str) -> bool:
    tolerance = Fraction(str(settings.number_tolerance))
    return any(abs(value - other) <= tolerance for value in numbers(text) for other in wanted)
  if has(record['prediction']):
    return EXTRACTION
  return IGNORED if any(map(has, results)) else WRONG_ARGUMENT
