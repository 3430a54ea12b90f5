"""Log-probabilities of the tokens of finished texts, computed on a separate thread."""

import asyncio
import codecs
import contextlib
from collections.abc import Iterator, Sequence
from concurrent import futures

from toolformer_jax.calls import CallSyntax
from toolformer_jax.inference.request import ToolCall
from toolformer_jax.inference.top_logprobs import TokenLogprobs, top_logprobs, warm_up
from toolformer_jax.models.adapter_stack import with_adapter
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.generation import Choice
from toolformer_jax.tokenizer import Tokenizer

_RETRY_S = 1


class Scorer:
  """Scores one text at a time, on a thread of its own, so that it never holds up the engine.

  Attributes:
    num_requests: requests with log-probabilities that have not ended.
  """

  def __init__(self, model: LanguageModel, max_tokens: int, max_requests: int):
    """Scores texts of up to `max_tokens` tokens, for up to `max_requests` requests at a time."""
    self._model, self._max_tokens, self._max_requests = model, max_tokens, max_requests
    self.num_requests = 0
    self._pool = futures.ThreadPoolExecutor(1, thread_name_prefix='logprobs')

  def warm_up(self) -> None:
    """Compiles all programs."""
    warm_up(self._model, self._max_tokens)

  @contextlib.contextmanager
  def admit(self) -> Iterator[None]:
    """Counts a request with log-probabilities until it ends; for the thread of the event loop.

    Texts are scored when they are finished and have given up their slot, so the queue of the
    engine does not limit how many of them wait here.

    Raises:
      ApiError: there are too many.
    """
    if self.num_requests >= self._max_requests:
      raise ApiError(429, f'{self.num_requests} requests wait for log-probabilities already; try '
                     'again later', code='queue_full', retry_after_s=_RETRY_S)
    self.num_requests += 1
    try:
      yield
    finally:
      self.num_requests -= 1

  async def score(self, tokens: Sequence[int], adapter: str | None = None) -> list[TokenLogprobs]:
    """Returns each of `tokens` with its log-probability after the ones before it.

    `adapter` is the name of the model's adapter that scores them; None for the model as it is.
    """
    model = self._model if adapter is None else with_adapter(self._model, adapter)
    return await asyncio.get_running_loop().run_in_executor(
        self._pool, top_logprobs, model, list(tokens))

  async def score_choice(self, choice: Choice, syntax: CallSyntax, *, echo: bool
                         ) -> list[TokenLogprobs]:
    """Returns the tokens of a finished text, after those of its prompt if `echo`.

    Tokens after the end of the text, where a stop string cut it, are left out, and so are those of
    calls that the text does not contain.
    """
    tokenizer, prompt = self._model.tokenizer, choice.prompt
    start_id = tokenizer.start_id if prompt.add_start_token else None
    start = [] if start_id is None else [start_id]
    made = choice.output.token_ids if choice.output else []
    tokens = await self.score([*start, *prompt.ids, *made], prompt.adapter)
    before = len(start) + len(prompt.ids)
    own = tokens[before:]
    if choice.output and not choice.tools_in_text:
      own = _without_calls(own, choice.output.calls, tokenizer, syntax)
    offsets = text_offsets(tokenizer, [token.token for token in own])
    kept = [token for token, at in zip(own, offsets, strict=True) if at < len(choice.text)]
    return (tokens[len(start):before] if echo else []) + kept

  def close(self) -> None:
    """Waits for the text that is being scored."""
    self._pool.shutdown(cancel_futures=True)


def text_offsets(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
  """Returns how many characters of the text precede each token."""
  decoder, offsets, at = codecs.getincrementaldecoder('utf-8')('replace'), [], 0
  for i in ids:
    offsets.append(at)
    at += len(decoder.decode(tokenizer.token_bytes[i]))
  return offsets


def _without_calls(tokens: Sequence[TokenLogprobs], calls: Sequence[ToolCall], tokenizer: Tokenizer,
                  syntax: CallSyntax) -> list[TokenLogprobs]:
  """Returns the tokens of a text without those of its calls, given in their order."""
  ids, at = [token.token for token in tokens], 0
  kept: list[TokenLogprobs] = []
  for made in calls:
    if made.call.result is None:
      continue
    spelled = [*tokenizer.encode(syntax.opening(made.call)),
               *tokenizer.encode(syntax.closing(made.call.result))]
    begin = next(i for i in range(at, len(ids)) if ids[i:i + len(spelled)] == spelled)
    kept += tokens[at:begin]
    at = begin + len(spelled)
  return [*kept, *tokens[at:]]
