"""The loss of each token of a text, with and without a call: why the call is kept or rejected."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolformer_jax.annotation.filter import WEIGHTS, call_prefixes, weighted_loss
from toolformer_jax.calls import DEFAULT_SYNTAX, Call, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.inference.attention_weights import attention_weights
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.language_model import LanguageModel


@dataclass(frozen=True)
class TokenLosses:
  """The losses of all tokens of a text, in nats.

  Attributes:
    tokens: the text of each token.
    position: index of the token that the call comes before.
    no_call: losses of the text alone; the first is None if the model has no start token.
    no_result: losses given the call with an empty result.
    with_result: losses given the call with its result.
    weights: weight of each token in the filter's loss; not zero for five tokens from `position` on.
    attention: share of its attention that the token before each token pays to the tokens of
      ` result]`, as the mean of all heads and layers.
    gain: how much the result lowers the weighted loss, in nats (paper, section 2).
  """

  tokens: tuple[str, ...]
  position: int
  no_call: tuple[float | None, ...]
  no_result: tuple[float, ...]
  with_result: tuple[float, ...]
  weights: tuple[float, ...]
  attention: tuple[float, ...]
  gain: float

  @property
  def gain_shares(self) -> tuple[float, ...]:
    """What each token contributes to the gain, in nats; they add up to it.

    They are weighted differences to the losses without the call or without its result, whichever
    have the lower weighted sum.
    """
    def weighted(losses: Sequence[float | None]) -> list[float]:
      return [weight * (loss or 0.0) for weight, loss in zip(self.weights, losses, strict=True)]
    baseline = min(weighted(self.no_call), weighted(self.no_result), key=math.fsum)
    return tuple(before - after
                 for before, after in zip(baseline, weighted(self.with_result), strict=True))

  def to_records(self) -> list[dict[str, Any]]:
    """Returns a dict for each token, for a data frame."""
    names = 'tokens', 'no_call', 'no_result', 'with_result', 'weights', 'attention', 'gain_shares'
    return [dict(zip(('token', *names[1:-1], 'gain_share'), values, strict=True))
            for values in zip(*(getattr(self, name) for name in names), strict=True)]


def token_losses(model: LanguageModel, text: str, *, call: str = '', position: int | None = None,
                 syntax: CallSyntax = DEFAULT_SYNTAX) -> TokenLosses:
  """Returns the losses by which the filter judges a call, for each token (paper, section 2).

  Args:
    model: the model.
    text: the text, with the call and its result in it if `call` is not given.
    call: the call with its result, ` [Calculator(2 + 3) -> 5]`.
    position: index of the token of `text` that the call comes before; needed with `call` alone.
    syntax: how calls are written.

  Raises:
    UserError: there is no call with a result, or more than one, or no token at `position`, or the
      text with its call is longer than the model allows.
  """
  if not call:
    text, found, before = _cut_call(text, syntax)
    position = len(model.tokenizer.encode(before))
  else:
    _, found, _ = _cut_call(f' {call.strip()}', syntax)
  ids = tuple(model.tokenizer.encode(text))
  # Without a start token, the first token has no loss that a call could lower; sampling proposes no
  # call there either.
  first = 0 if model.tokenizer.start_id is not None else 1
  if position is None or not first <= position < len(ids):
    raise UserError(f'the position of the call must be from {first} to {len(ids) - 1}, the indices '
                    f'of the tokens of the text that have a loss, not {position}')
  prefixes = call_prefixes(found, model.tokenizer.encode, syntax)
  size = 1 - first + max(map(len, prefixes)) + len(ids)
  if size > model.config.max_tokens:
    raise UserError(f'the text with its call has {size} tokens, and the model has only '
                    f'{model.config.max_tokens} positions; shorten the text')
  requests = [ScoreRequest(prefix, ids, tuple(range(len(ids)))) for prefix in prefixes]
  logprobs = score(model, requests)
  gain = (min(weighted_loss(some[position:]) for some in logprobs[:2])
          - weighted_loss(logprobs[2][position:]))
  weights = [0.0] * len(ids)
  for i, weight in enumerate(WEIGHTS[:len(ids) - position].tolist()):
    weights[position + i] = weight
  no_call = tuple(None if value != value else -value for value in logprobs[0].tolist())
  no_result, with_result = (tuple((-some).tolist()) for some in logprobs[1:])
  return TokenLosses(tuple(model.tokenizer.decode([token]) for token in ids), position, no_call,
                     no_result, with_result, tuple(weights),
                     _attention_to_result(model, found, prefixes[2], ids, syntax), float(gain))


def _attention_to_result(model: LanguageModel, call: Call, prefix: Sequence[int],
                         ids: Sequence[int], syntax: CallSyntax) -> tuple[float, ...]:
  """Returns `TokenLosses.attention`: the text `ids` comes after the call, as in the filter."""
  start = [] if model.tokenizer.start_id is None else [model.tokenizer.start_id]
  first = len(start) + len(model.tokenizer.encode(syntax.opening(call)))
  weights_LTS = attention_weights(model, [*start, *prefix, *ids])
  end = len(start) + len(prefix)
  shares_T = weights_LTS[:, :, first:end].sum(-1).mean(0)
  return tuple(shares_T[end - 1:end - 1 + len(ids)].tolist())


def _cut_call(text: str, syntax: CallSyntax) -> tuple[str, Call, str]:
  """Returns the text without its one call, the call, and the text before it."""
  names = set(re.findall(r'(\w+)\(', text))  # of everything that looks like a call
  spans = [span for span in syntax.find(text, names) if span.call.result]
  if len(spans) != 1:
    raise UserError(f'the text must have one call with a result, not {len(spans)}; write the call '
                    'as ` [Calculator(2 + 3) -> 5]`')
  span = spans[0]
  return text[:span.start] + text[span.end:], span.call, text[:span.start]
