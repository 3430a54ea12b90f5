"""Log-probabilities of the tokens of prompts, computed on a separate thread.

Those of generated tokens come from the engine, with the text.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent import futures

from toolformer_jax.inference.token_logprobs import TokenLogprobs
from toolformer_jax.inference.top_logprobs import top_logprobs, warm_up
from toolformer_jax.models.adapter_stack import with_adapter
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.generation import Prompt

_RETRY_S = 1


class Scorer:
  """Scores one prompt at a time, on a thread of its own, so that it never holds up the engine.

  Attributes:
    num_requests: requests for log-probabilities of prompts that have not ended.
  """

  def __init__(self, model: LanguageModel, max_tokens: int, max_requests: int):
    """Scores prompts of up to `max_tokens` tokens, for up to `max_requests` requests at a time."""
    self._model, self._max_tokens, self._max_requests = model, max_tokens, max_requests
    self.num_requests = 0
    self._pool = futures.ThreadPoolExecutor(1, thread_name_prefix='logprobs')

  def warm_up(self) -> None:
    """Compiles all programs."""
    warm_up(self._model, self._max_tokens)

  @contextlib.contextmanager
  def admit(self) -> Iterator[None]:
    """Counts a request for log-probabilities of prompts until it ends; for the event loop's thread.

    A prompt has no slot while it is scored, so the queue of the engine does not limit how many of
    them wait here.

    Raises:
      ApiError: there are too many.
    """
    if self.num_requests >= self._max_requests:
      raise ApiError(429, f'{self.num_requests} requests wait for log-probabilities of prompts '
                     'already; try again later', code='queue_full', retry_after_s=_RETRY_S)
    self.num_requests += 1
    try:
      yield
    finally:
      self.num_requests -= 1

  async def score(self, prompt: Prompt) -> list[TokenLogprobs]:
    """Returns each token of a prompt with its log-probability after the ones before it."""
    model = self._model if prompt.adapter is None else with_adapter(self._model, prompt.adapter)
    start_id = self._model.tokenizer.start_id if prompt.add_start_token else None
    start = [] if start_id is None else [start_id]
    tokens = await asyncio.get_running_loop().run_in_executor(
        self._pool, top_logprobs, model, [*start, *prompt.ids])
    return tokens[len(start):]

  def close(self) -> None:
    """Waits for the prompt that is being scored."""
    self._pool.shutdown(cancel_futures=True)
