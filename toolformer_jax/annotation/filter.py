"""Step 3: compute how much each call helps (paper, section 2, "Filtering API Calls")."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from toolformer_jax.annotation.config import CallPlacement
from toolformer_jax.annotation.early_rejection import TOKENS_SKIPPED
from toolformer_jax.calls import Call, CallSyntax
from toolformer_jax.data.records import (
  BaselineLoss,
  Document,
  ExecutedCall,
  ScoredCall,
  from_json,
  to_json,
)
from toolformer_jax.errors import UserError
from toolformer_jax.inference.scoring import ScoreRequest, needed_tokens, score
from toolformer_jax.models.language_model import LanguageModel

# The paper's weights (section 4.1): max(0, 1 - 0.2 t), normalised to a sum of 1; five are not zero.
WEIGHTS = np.array([5, 4, 3, 2, 1]) / 15


def weighted_loss(logprobs: np.ndarray) -> float:
  """Returns -sum over t of w_t log p(x_{i+t}), in nats.

  Near the end of a text, where there are fewer than five tokens, the weights are not normalised
  again.

  Args:
    logprobs: [T], log p(x_{i+t}) for t = 0, 1, ...; only the first five are used.
  """
  logprobs = logprobs[:len(WEIGHTS)]
  return float(-(WEIGHTS[:len(logprobs)] * logprobs.astype(np.float64)).sum())


def losses_no_call(places: Sequence[tuple[tuple[int, ...], int]], *, model: LanguageModel,
                   scoring_tokens: int, counts: Counter[str]) -> list[float]:
  """Returns the losses of texts alone; those of all positions of a text are computed in one pass.

  Args:
    places: the token ids of a text, and a position in it.
    model: scores the texts.
    scoring_tokens: largest number of tokens in a batch.
    counts: gets the numbers of tokens that are needed and computed.

  Raises:
    UserError: there is not enough memory, or a loss is not a number.
  """
  return _losses([_before_text(text, position, ()) for text, position in places], model,
                 scoring_tokens, counts)


def score_calls(
    executed: Sequence[ExecutedCall], documents: Sequence[Document], *,
    model: LanguageModel, syntax: CallSyntax, min_gain: float = -math.inf,
    placement: CallPlacement = 'prefix', baseline: BaselineLoss = 'min',
    scoring_tokens: int = 1024, reuse_no_call: bool = False,
) -> tuple[list[ScoredCall], Counter]:
  """Returns the calls that have a result, with their three losses, and counts.

  Each loss is that of the tokens from the call's position on, given the text before and nothing,
  the call with an empty result, or the call with its result. The paper puts the call before the
  *whole* text (footnote 3).

  Args:
    executed: calls in `documents`; those without a result are dropped.
    documents: the texts.
    model: scores the texts.
    syntax: how calls are written.
    min_gain: the loss with an empty result is not computed (None) if the gain is known to be below
      this from the other two.
    placement: 'prefix' puts the call before the text, 'in_place' at its position.
    baseline: which loss the gain is measured from: 'min' of that without a call and that with an
      empty result, as in the paper, or one of them.
    scoring_tokens: largest number of tokens in a batch.
    reuse_no_call: keep the losses without a call that `executed` has; they must be of `model`.

  Raises:
    UserError: there is not enough memory, or a loss is not a number.
  """
  texts = {document.id: tuple(model.tokenizer.encode(document.text)) for document in documents}
  calls = [call for call in executed if call.failure is None]
  requests = [_requests(texts[call.document_id], call, model.tokenizer.encode, syntax, placement)
              for call in calls]
  counts = Counter(scored=len(calls))
  known = [call.loss_no_call if reuse_no_call else None for call in calls]
  found = iter(_losses(
      [request for loss, (no_call, _, result) in zip(known, requests, strict=True)
       for request in ((no_call, result) if loss is None else (result,))],
      model, scoring_tokens, counts))
  losses = [(next(found) if loss is None else loss, next(found)) for loss in known]
  needed = [i for i, (no_call, result) in enumerate(losses)
            if baseline == 'no_result' or no_call - result >= min_gain]
  empty = [request for _, request, _ in requests]
  loss_call = dict(zip(needed, _losses([empty[i] for i in needed], model, scoring_tokens, counts),
                       strict=True))
  if len(needed) < len(calls):
    counts[TOKENS_SKIPPED] = needed_tokens(model, empty) - needed_tokens(
        model, [empty[i] for i in needed])
  scored = [
      from_json(ScoredCall, {**to_json(call), 'loss_no_call': no_call,
                             'loss_call': loss_call.get(i), 'loss_result': result,
                             'baseline': baseline})
      for i, (call, (no_call, result)) in enumerate(zip(calls, losses, strict=True))]
  return scored, counts


def _losses(requests: Sequence[ScoreRequest], model: LanguageModel, scoring_tokens: int,
            counts: Counter[str]) -> list[float]:
  """Returns the weighted loss of each request.

  Raises:
    UserError: there is not enough memory, or a loss is not a number.
  """
  logprobs = score(model, requests, scoring_tokens=scoring_tokens, counts=counts)
  losses = [*map(weighted_loss, logprobs)]
  if not all(map(math.isfinite, losses)):
    raise UserError('the model gives a loss that is not a number; its weights are broken, or '
                    'ModelConfig.dtype has too small a range for them')
  return losses


def _requests(text: tuple[int, ...], call: ExecutedCall, encode: Callable[[str], list[int]],
              syntax: CallSyntax, placement: CallPlacement) -> list[ScoreRequest]:
  """Returns the requests for the losses without a call, with an empty result, and with the result.

  The first one is the same for both placements: one pass over a text is enough for all its calls.
  """
  no_call, *with_call = call_prefixes(call.call(), encode, syntax)
  place = _PLACED[placement]
  return [_before_text(text, call.position, no_call),
          *(place(text, call.position, prefix) for prefix in with_call)]


def _before_text(text: tuple[int, ...], position: int, call: tuple[int, ...]) -> ScoreRequest:
  targets = tuple(range(position, min(position + len(WEIGHTS), len(text))))
  return ScoreRequest(call, text, targets)


def _in_place(text: tuple[int, ...], position: int, call: tuple[int, ...]) -> ScoreRequest:
  tokens = (*text[:position], *call, *text[position:position + len(WEIGHTS)])
  return ScoreRequest((), tokens, tuple(range(position + len(call), len(tokens))))


_PLACED = {'prefix': _before_text, 'in_place': _in_place}


def call_prefixes(call: Call, encode: Callable[[str], list[int]], syntax: CallSyntax
                  ) -> list[tuple[int, ...]]:
  """Returns the token ids of the three prefixes: nothing, e(c, empty result) and e(c, result)."""
  opening = encode(syntax.opening(call))
  empty, result = (encode(syntax.closing(text or '')) for text in ('', call.result))
  return [(), (*opening, *empty), (*opening, *result)]
