"""Step 3: compute how much each call helps (paper, section 2, "Filtering API Calls")."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from toolformer_jax.annotation.config import CallPlacement
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
from toolformer_jax.inference.scoring import ScoreRequest, score
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


def score_calls(
    executed: Sequence[ExecutedCall], documents: Sequence[Document], *,
    model: LanguageModel, syntax: CallSyntax, min_gain: float = -math.inf,
    placement: CallPlacement = 'prefix', baseline: BaselineLoss = 'min',
    scoring_tokens: int = 1024,
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

  Raises:
    UserError: there is not enough memory, or a loss is not a number.
  """
  texts = {document.id: tuple(model.tokenizer.encode(document.text)) for document in documents}
  calls = [call for call in executed if call.failure is None]
  prefixes = [call_prefixes(call.call(), model.tokenizer.encode, syntax) for call in calls]
  request = _PLACED[placement]
  requests = [request(texts[call.document_id], call.position, prefix)
              for call, (nothing, _, result) in zip(calls, prefixes, strict=True)
              for prefix in (nothing, result)]
  counts = Counter(scored=len(calls))
  logprobs = score(model, requests, scoring_tokens=scoring_tokens, counts=counts)
  losses = [*map(weighted_loss, logprobs)]
  if not all(map(math.isfinite, losses)):
    raise UserError('the model gives a loss that is not a number; its weights are broken, or '
                    'ModelConfig.dtype has too small a range for them')
  loss_no_call, loss_result = losses[::2], losses[1::2]
  needed = [i for i in range(len(calls))
            if baseline == 'no_result' or loss_no_call[i] - loss_result[i] >= min_gain]
  requests = [request(texts[calls[i].document_id], calls[i].position, prefixes[i][1])
              for i in needed]
  logprobs = score(model, requests, scoring_tokens=scoring_tokens, counts=counts)
  loss_call = dict(zip(needed, map(weighted_loss, logprobs), strict=True))
  scored = [
      from_json(ScoredCall, {**to_json(call), 'loss_no_call': loss_no_call[i],
                             'loss_call': loss_call.get(i), 'loss_result': loss_result[i],
                             'baseline': baseline})
      for i, call in enumerate(calls)]
  return scored, counts


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
