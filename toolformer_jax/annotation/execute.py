"""Step 2: run the sampled calls (paper, section 2, "Executing API Calls")."""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from toolformer_jax.annotation.records import Candidate, Document, ExecutedCall, from_json, to_json
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.executor import Executor, Request

_NUMBER = re.compile(r'\d[\d,]*(?:\.\d+)?')
LOOK_AHEAD = 'look-ahead (number_guard): the text states a number of the argument only later'


def execute(
    candidates: Sequence[Candidate], documents: Sequence[Document], *,
    executor: Executor, tokenizer: Tokenizer, number_guard: bool,
) -> tuple[list[ExecutedCall], Counter]:
  """Returns each candidate with its tool's result or the reason for having none, and counts.

  Args:
    candidates: of `documents`.
    documents: the texts; tools may know their title and date.
    executor: holds the tools.
    tokenizer: to find a position in the text.
    number_guard: do not execute calls that copy a number from the text after them.
  """
  by_id = {document.id: document for document in documents}
  guarded = {i for i, candidate in enumerate(candidates)
             if number_guard and looks_ahead(candidate, by_id[candidate.document_id], tokenizer)}
  runnable = [i for i in range(len(candidates)) if i not in guarded]
  outcomes = executor.run([_request(candidates[i], by_id) for i in runnable])
  result = {i: (outcome.result, outcome.failure)
            for i, outcome in zip(runnable, outcomes, strict=True)}
  executed = []
  for i, candidate in enumerate(candidates):
    value, failure = result.get(i, (None, LOOK_AHEAD))
    fields = {**to_json(candidate), 'result': value, 'failure': failure}
    executed.append(from_json(ExecutedCall, fields))
  failures = Counter(f'failed: {call.failure}' for call in executed if call.failure)
  counts = Counter(candidates=len(executed), executed=sum(c.failure is None for c in executed))
  return executed, counts + failures


def _request(candidate: Candidate, by_id: dict[str, Document]) -> Request:
  document = by_id[candidate.document_id]
  context = Context(document_id=document.id, title=document.title, date=document.date)
  return Request(candidate.tool, candidate.argument, context)


def looks_ahead(candidate: Candidate, document: Document, tokenizer: Tokenizer) -> bool:
  """Tells whether the argument has a number that the text states after the call but not before."""
  ids = tokenizer.encode(document.text)
  position = len(tokenizer.decode(ids[:candidate.position]))
  stated = _numbers(document.text)
  # A number that the call stands in the middle of is not yet stated.
  before = {value for end, value in stated if end <= position}
  after = {value for end, value in stated if end > position}
  return any(value in after - before for _, value in _numbers(candidate.argument))


def _numbers(text: str) -> list[tuple[int, Fraction]]:
  """Returns the numbers of `text`: where each ends, and its value."""
  return [(match.end(), Fraction(match[0].replace(',', ''))) for match in _NUMBER.finditer(text)]
