"""Server-sent events: what a streamed response is made of."""

import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from toolformer_jax.serving.errors import ApiError, internal_error
from toolformer_jax.serving.generation import until_disconnected

log = logging.getLogger(__name__)

DONE = 'data: [DONE]\n\n'
_HEADERS = {'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no'}  # no proxy shall hold it back


def event(data: dict[str, Any], name: str | None = None) -> str:
  """Returns one event as it is sent, in ASCII.

  Some clients take characters such as U+2028 for the end of a line.
  """
  head = '' if name is None else f'event: {name}\n'
  return f'{head}data: {json.dumps(data)}\n\n'


class EventStream(StreamingResponse):
  """Sends events until they end or the client goes away.

  Not sse-starlette's response: that ends its streams when the server is asked to stop, where ours
  goes on to the end of what it has admitted.
  """

  def __init__(self, events: AsyncIterator[str]):
    """Sends `events`; an error among them is sent as the last one."""
    super().__init__(_encoded(events), media_type='text/event-stream', headers=_HEADERS)

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the response."""
    with contextlib.suppress(ApiError, OSError):  # the client has gone
      await until_disconnected(receive, self.stream_response(send))


async def _encoded(events: AsyncIterator[str]) -> AsyncIterator[bytes]:
  try:
    async for text in events:
      yield text.encode()
  except ApiError as error:
    yield event(error.body()).encode()
  except Exception:  # a bug: its client shall know that the text is not complete
    log.exception('a stream has failed')
    yield event(internal_error().body()).encode()
