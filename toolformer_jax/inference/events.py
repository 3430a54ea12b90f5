"""What a step of the engine tells about its requests."""

from collections.abc import Sequence
from dataclasses import dataclass

from toolformer_jax.calls import Call
from toolformer_jax.inference.request import GeneratedText, ToolCall
from toolformer_jax.inference.token_logprobs import TokenLogprobs


@dataclass(frozen=True)
class RequestStarted:
  """A request has got a row.

  Attributes:
    request_id: of the request.
    num_prompt_tokens: tokens of its prompt, with the start token.
    num_cached_tokens: those of them whose keys and values the prefix cache had; None without one.
  """

  request_id: int
  num_prompt_tokens: int
  num_cached_tokens: int | None


@dataclass(frozen=True)
class NewText:
  """The next piece of a request's continuation; the pieces add up to all of it.

  A finished call comes in pieces of its own, for which `is_call` is true. If the request wants
  log-probabilities, a piece has those of the tokens that begin in it.
  """

  request_id: int
  text: str
  is_call: bool = False
  logprobs: Sequence[TokenLogprobs] = ()


@dataclass(frozen=True)
class CallStarted:
  """A request has opened a call; its tool runs."""

  request_id: int
  call: Call


@dataclass(frozen=True)
class CallFinished:
  """The tool of a request has returned a result, or failed; then the call is removed."""

  request_id: int
  call: ToolCall


@dataclass(frozen=True)
class RequestFinished:
  """A request has finished."""

  request_id: int
  output: GeneratedText


Event = RequestStarted | NewText | CallStarted | CallFinished | RequestFinished
