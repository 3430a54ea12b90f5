"""The texts of one request as they come from the engine's thread, in the event loop."""

import asyncio
import dataclasses
import functools
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from starlette.types import Receive

from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.events import (
  CallFinished,
  CallStarted,
  Event,
  NewText,
  RequestFinished,
  RequestStarted,
)
from toolformer_jax.inference.request import GeneratedText, ToolCall
from toolformer_jax.inference.token_logprobs import TokenLogprobs
from toolformer_jax.media.table import MediaTable
from toolformer_jax.serving.engine_thread import EngineThread, Failed, Job
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.tools.base import Context

Result = TypeVar('Result')

_CODES = {400: 'invalid_value', 500: 'internal_error', 503: 'service_unavailable'}  # of `Failed`


class Prompt(NamedTuple):
  """A prompt with what goes with it, see `Job`."""

  ids: Sequence[int]
  params: GenerationConfig
  add_start_token: bool
  adapter: str | None = None
  logprobs: bool = False


class Generation:
  """The texts of one request."""

  def __init__(self, thread: EngineThread, prompts: Sequence[Prompt], context: Context,
               tool_names: Sequence[str]):
    """Submits the prompts.

    Raises:
      ApiError: the server takes no request now.
    """
    self._events: asyncio.Queue[tuple[int, Event | Failed]] = asyncio.Queue()
    def put(number: int, event: Event | Failed) -> None:
      self._events.put_nowait((number, event))
    self._thread = thread
    self._left = set(range(len(prompts)))
    self._jobs = [
        # Each text has a table of media of its own: tools may add to it.
        Job(prompt.ids, prompt.params,
            dataclasses.replace(context, media=MediaTable(context.media.media)), tool_names,
            prompt.add_start_token, functools.partial(put, number), prompt.adapter, prompt.logprobs)
        for number, prompt in enumerate(prompts)]
    thread.submit(self._jobs)

  async def events(self) -> AsyncIterator[tuple[int, Event]]:
    """Yields the number of a prompt and an event, until all texts are done.

    Raises:
      ApiError: a text has failed.
    """
    while self._left:
      number, event = await self._events.get()
      if isinstance(event, Failed):
        self._left.discard(number)
        raise ApiError(event.status, event.message, code=_CODES[event.status])
      if isinstance(event, RequestFinished):
        self._left.discard(number)
      yield number, event

  def close(self) -> None:
    """Aborts the texts that are not done."""
    if self._left:
      self._thread.abort([self._jobs[number] for number in self._left])
      self._left.clear()


class Delta(NamedTuple):
  """The next update of a text for the client: a piece of text, finished calls, or the end.

  `logprobs` are those of the tokens that begin in the piece, if they are wanted.
  """

  text: str = ''
  calls: Sequence[ToolCall] = ()
  logprobs: Sequence[TokenLogprobs] = ()
  output: GeneratedText | None = None


class Choice:
  """One text of a response while it is generated.

  Attributes:
    prompt: what it continues.
    tools_in_text: whether the text contains the calls; otherwise they are reported separately.
    text, calls, logprobs: what was sent so far.
    num_cached_tokens: tokens of the prompt that the prefix cache had.
    output: the finished text; None before.
  """

  def __init__(self, prompt: Prompt, tools_in_text: bool):
    """Creates an empty choice."""
    self.prompt, self.tools_in_text = prompt, tools_in_text
    self.text = ''
    self.calls: list[ToolCall] = []
    self.logprobs: list[TokenLogprobs] = []
    self.num_cached_tokens = 0
    self.output: GeneratedText | None = None
    self._held: list[ToolCall] = []  # calls whose piece of the text is still to come

  def apply(self, event: Event) -> Delta | None:
    """Applies an event; returns the update for the client, or None.

    A call that is part of the text is sent with its piece of the text.
    """
    delta = self._delta(event)
    if delta:
      self.text += delta.text
      self.calls += delta.calls
      self.logprobs += delta.logprobs
      self.output = delta.output
    return delta

  def _delta(self, event: Event) -> Delta | None:
    match event:
      case RequestStarted(num_cached_tokens=num_cached):
        self.num_cached_tokens = num_cached or 0
        return None
      case CallStarted():
        return None
      case CallFinished(call=call):
        if self.tools_in_text and call.failure is None:
          self._held.append(call)
          return None
        return Delta(calls=[call])
      case NewText(text=text, is_call=is_call, logprobs=logprobs):
        if not is_call:
          return Delta(text, logprobs=logprobs)
        calls, self._held = self._held, []
        return Delta(text, calls, logprobs) if self.tools_in_text else None
      case RequestFinished(output=output):
        return Delta(output=output)


async def until_disconnected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
  """Returns what `work` returns; cancels it if the client goes away before.

  `receive` is that of a request whose body was read.

  Raises:
    ApiError: the client has gone.
  """
  task = asyncio.create_task(work)
  watch = asyncio.create_task(_disconnected(receive))
  try:
    await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
      raise ApiError(499, 'the client has closed the connection')
    return task.result()
  finally:
    for started in (task, watch):
      started.cancel()
    await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
  while (await receive())['type'] != 'http.disconnect':
    pass


def tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, str | None]]:
  """Returns calls as the field `toolformer_calls` has them."""
  return [{'name': made.call.name, 'arguments': made.call.argument, 'output': made.call.result,
           'error': failure(made)} for made in calls]


def failure(made: ToolCall) -> str | None:
  """Returns why a call has no result: a tool's own words, but of a crash only its kind."""
  return made.failure and ':'.join(made.failure.split(':')[:2])
