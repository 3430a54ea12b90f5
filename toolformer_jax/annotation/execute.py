"""Step 2: execute the sampled calls (paper, section 2, "Executing API Calls")."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

from toolformer_jax import calls
from toolformer_jax.data.numbers import find_numbers
from toolformer_jax.data.records import Candidate, Document, ExecutedCall, from_json, to_json
from toolformer_jax.media.table import MediaTable
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.executor import Executor, Outcome, Request

LOOK_AHEAD = 'look-ahead: the text states the argument, or a number in it, only later'
_ALWAYS_GUARDED = ('MT',)  # paper, appendix A.1


def start_calls(
    candidates: Sequence[Candidate], documents: Sequence[Document], *,
    executor: Executor, tokenizer: Tokenizer, look_ahead_guard: bool,
) -> Callable[[], tuple[list[ExecutedCall], Counter]]:
  """Starts executing `candidates` in the background.

  Args:
    candidates: calls in `documents`.
    documents: the texts, whose titles and dates tools can use.
    executor: runs the tools.
    tokenizer: of the model that sampled the calls; their positions count its tokens.
    look_ahead_guard: drop calls that copy from the text after them. Calls to the translator are
      always checked for this.

  Returns:
    a function that waits for the results. It returns each candidate with the result of its tool or
    the reason why it has none, and counts.

  Raises:
    UserError: a candidate is a call to a tool that the executor does not have.
  """
  by_id = {document.id: document for document in documents}
  def is_allowed(candidate: Candidate) -> bool:
    guarded = look_ahead_guard or candidate.tool in _ALWAYS_GUARDED
    document = by_id[candidate.document_id]
    return not (guarded and looks_ahead(candidate, document, tokenizer, numbers=look_ahead_guard))
  allowed = [is_allowed(candidate) for candidate in candidates]
  started = iter(executor.submit_all(
      [_request(candidate, by_id) for candidate in itertools.compress(candidates, allowed)]))
  def finish() -> tuple[list[ExecutedCall], Counter[str]]:
    executed = [_executed(candidate, next(started).result() if runs else None)
                for candidate, runs in zip(candidates, allowed, strict=True)]
    failures = Counter(f'failed: {call.failure}' for call in executed if call.failure)
    counts = Counter(candidates=len(executed), executed=sum(c.failure is None for c in executed))
    return executed, counts + failures
  return finish


def _executed(candidate: Candidate, outcome: Outcome | None) -> ExecutedCall:
  """Returns `candidate` with its outcome; None stands for a call that the guard dropped."""
  result, failure = (outcome.result, outcome.failure) if outcome else (None, LOOK_AHEAD)
  return from_json(ExecutedCall, {**to_json(candidate), 'result': result, 'failure': failure})


def _request(candidate: Candidate, by_id: dict[str, Document]) -> Request:
  document = by_id[candidate.document_id]
  context = Context(document_id=document.id, title=document.title, date=document.date,
                    media=MediaTable(document.media))
  return Request(candidate.tool, candidate.argument, context)


def looks_ahead(candidate: Candidate, document: Document, tokenizer: Tokenizer,
                numbers: bool) -> bool:
  """Tells whether a call copies from the text after it.

  That is the case if the text contains the argument, but only after the call; with `numbers` also
  if that holds for a number in the argument.
  """
  position = tokenizer.characters_before(document.text, candidate.position)
  argument, text = calls.unquote(candidate.argument).casefold(), document.text
  if argument and argument in text.casefold() and argument not in text[:position].casefold():
    return True
  if not numbers:
    return False
  stated = _numbers(text)
  # A number that the call interrupts counts as one after it.
  before = {value for end, value in stated if end <= position}
  after = {value for end, value in stated if end > position}
  return any(value in after - before for _, value in _numbers(candidate.argument))


def _numbers(text: str) -> list[tuple[int, Fraction]]:
  """Returns the numbers of `text`: the index of the end of each, and its absolute value."""
  return [(number.end, abs(number.value)) for number in find_numbers(text)]
