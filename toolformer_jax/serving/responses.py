"""POST /v1/responses: answers with calls as items of their own, between messages."""

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from toolformer_jax.inference.events import (
  CallFinished,
  CallStarted,
  Event,
  NewText,
  RequestFinished,
)
from toolformer_jax.serving import sse
from toolformer_jax.serving.chat_template import ChatTemplate
from toolformer_jax.serving.generation import Choice, Generation, Prompt, failure
from toolformer_jax.serving.messages import call_arguments, response_messages
from toolformer_jax.serving.protocol import ResponsesRequest
from toolformer_jax.serving.service import Service

SERVER_LABEL = 'toolformer'


@dataclass
class ModelResponse:
  """A request with the items that answer it.

  Attributes:
    service: what answers it.
    fields: of the request.
    choices: its one text.
    id, created: of the response.
    items: of the output, finished or not.
  """

  service: Service
  fields: ResponsesRequest
  choices: list[Choice]
  id: str
  created: int
  items: list[dict[str, Any]] = field(default_factory=list)
  scores_prompts: ClassVar[bool] = False
  _sequence: int = -1

  @property
  def prompts(self) -> list[Prompt]:
    """What is to be generated."""
    return [choice.prompt for choice in self.choices]

  async def response(self, generation: Generation) -> dict[str, Any]:
    """Returns the response to a request that is not streamed."""
    async for _, event in generation.events():
      for _ in self._apply(event):
        pass
    return self._response_object()

  async def stream(self, generation: Generation) -> AsyncIterator[str]:
    """Yields the events of a streamed response."""
    yield self._event('created', response=self._response_object())
    yield self._event('in_progress', response=self._response_object())
    async for _, event in generation.events():
      for sent in self._apply(event):
        yield sent

  def _apply(self, event: Event) -> Iterator[str]:
    """Applies an event of the engine; yields the events of the stream."""
    self.choices[0].apply(event)
    match event:
      case NewText(text=text, is_call=False):
        yield from self._add_text(text)
      case CallStarted(call=call):
        yield from self._end_message()
        yield from self._begin_call(call.name, call_arguments(call.argument))
      case CallFinished(call=made):
        yield from self._end_call(made.call.result, failure(made))
      case RequestFinished(output=output):
        if not self.items:
          yield from self._begin_message()
        yield from self._end_message()
        name = 'completed' if output.finish_reason == 'stop' else 'incomplete'
        yield self._event(name, response=self._response_object())

  def _event(self, name: str, **fields: Any) -> str:
    self._sequence += 1
    name = f'response.{name}'
    return sse.event({'type': name, 'sequence_number': self._sequence, **fields}, name)

  def _item_event(self, name: str, **fields: Any) -> str:
    """Returns an event that belongs to the last item."""
    return self._event(name, item_id=self.items[-1]['id'], output_index=len(self.items) - 1,
                       **fields)

  def _add_text(self, text: str) -> Iterator[str]:
    if not self.items or self.items[-1]['status'] != 'in_progress':
      yield from self._begin_message()
    self.items[-1]['content'][0]['text'] += text
    yield self._item_event('output_text.delta', content_index=0, delta=text, logprobs=[])

  def _begin_message(self) -> Iterator[str]:
    item: dict[str, Any] = {
        'id': f'msg_{uuid.uuid4().hex}', 'type': 'message', 'role': 'assistant',
        'status': 'in_progress', 'content': []}
    self.items.append(item)
    yield self._event('output_item.added', output_index=len(self.items) - 1, item=item)
    item['content'].append({'type': 'output_text', 'text': '', 'annotations': [], 'logprobs': []})
    yield self._item_event('content_part.added', content_index=0, part=item['content'][0])

  def _end_message(self) -> Iterator[str]:
    """Ends the open message, if there is one."""
    if not self.items or self.items[-1]['status'] != 'in_progress':
      return
    item = self.items[-1]
    item['status'] = 'completed'
    output = self.choices[0].output
    if output and output.finish_reason == 'length':
      item['status'] = 'incomplete'
    part = item['content'][0]
    yield self._item_event('output_text.done', content_index=0, text=part['text'], logprobs=[])
    yield self._item_event('content_part.done', content_index=0, part=part)
    yield self._event('output_item.done', output_index=len(self.items) - 1, item=item)

  def _begin_call(self, name: str, arguments: str) -> Iterator[str]:
    item = {'id': f'mcp_{uuid.uuid4().hex}', 'type': 'mcp_call', 'name': name, 'arguments': '',
            'server_label': SERVER_LABEL, 'output': None, 'error': None, 'status': 'calling'}
    self.items.append(item)
    yield self._event('output_item.added', output_index=len(self.items) - 1, item=item)
    yield self._item_event('mcp_call.in_progress')
    item['arguments'] = arguments
    yield self._item_event('mcp_call_arguments.delta', delta=arguments)
    yield self._item_event('mcp_call_arguments.done', arguments=arguments)

  def _end_call(self, output: str | None, error: str | None) -> Iterator[str]:
    item = self.items[-1]
    item.update(output=output, error=error, status='failed' if error else 'completed')
    yield self._item_event('mcp_call.failed' if error else 'mcp_call.completed')
    yield self._event('output_item.done', output_index=len(self.items) - 1, item=item)

  def _response_object(self) -> dict[str, Any]:
    """Returns the response as it is now."""
    fields, [choice] = self.fields, self.choices
    output, params = choice.output, choice.prompt.params
    cut = output is not None and output.finish_reason == 'length'
    used = None
    if output:
      read, written = len(choice.prompt.ids), len(output.token_ids)
      used = {'input_tokens': read,
              'input_tokens_details': {'cached_tokens': choice.num_cached_tokens},
              'output_tokens': written, 'output_tokens_details': {'reasoning_tokens': 0},
              'total_tokens': read + written}
    tools = [tool.model_dump() for tool in fields.tools or ()]
    return {
        'id': self.id, 'object': 'response', 'created_at': self.created, 'model': fields.model,
        'status': 'in_progress' if output is None else 'incomplete' if cut else 'completed',
        'error': None, 'incomplete_details': {'reason': 'max_output_tokens'} if cut else None,
        'instructions': fields.instructions, 'max_output_tokens': fields.max_output_tokens,
        'output': self.items, 'parallel_tool_calls': False, 'previous_response_id': None,
        'store': False, 'temperature': params.temperature,
        'text': {'format': {'type': 'text'}}, 'tool_choice': fields.tool_choice or 'auto',
        'tools': tools, 'top_p': params.top_p, 'truncation': 'disabled',
        'metadata': {}, 'usage': used}


def prepare(service: Service, template: ChatTemplate, fields: ResponsesRequest,
            handles: Sequence[str] = ()) -> ModelResponse:
  """Returns what a request asks for; `handles` are those of its pictures and sounds.

  Raises:
    ApiError: the request is invalid or exceeds a limit.
  """
  messages = ([{'role': 'user', 'content': fields.input}] if isinstance(fields.input, str)
              else response_messages(fields.input, service.syntax, iter(handles)))
  if fields.instructions:
    messages.insert(0, {'role': 'system', 'content': fields.instructions})
  fields = fields.model_copy(update={'allowed_tools': _allowed(service, fields)})
  ids = template.encode(messages)
  max_tokens = service.max_tokens(fields.max_output_tokens, service.limits.max_tokens,
                                  template.prompt_tokens(ids), 'max_output_tokens')
  params = service.params(fields, max_tokens=max_tokens,
                          stop=(*service.generation.stop, *template.stop))
  prompt = Prompt(ids, params, template.add_start_token, service.adapter(fields.model))
  return ModelResponse(
      service, fields, [Choice(prompt, False)],
      f'resp_{uuid.uuid4().hex}', int(time.time()))


def _allowed(service: Service, fields: ResponsesRequest) -> list[str] | None:
  """Returns the tools that may be called: those of `tools` that `allowed_tools` has as well."""
  if fields.tool_choice == 'none':
    return []
  if fields.tools is None:
    return fields.allowed_tools
  listed = [name for tool in fields.tools for name in service.tools(tool.allowed_tools)]
  own = service.tools(fields.allowed_tools)
  return [name for name in listed if name in own]
