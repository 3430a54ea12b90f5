"""POST /v1/chat/completions: answers in a conversation.

Tools have already run when a call is reported, so a stream never asks the client to run one.
"""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from toolformer_jax.inference.token_logprobs import TokenLogprobs
from toolformer_jax.serving import sse
from toolformer_jax.serving.chat_template import ChatTemplate
from toolformer_jax.serving.completions import usage
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.generation import Choice, Generation, Prompt, tool_calls
from toolformer_jax.serving.messages import chat_messages
from toolformer_jax.serving.protocol import ChatRequest
from toolformer_jax.serving.service import Service, reseeded


@dataclass(frozen=True)
class Chat:
  """A request with its choices.

  Attributes:
    service: what answers it.
    fields: of the request.
    choices: its texts.
    id, created: of the response.
  """

  service: Service
  fields: ChatRequest
  choices: list[Choice]
  id: str
  created: int
  scores_prompts: ClassVar[bool] = False

  @property
  def prompts(self) -> list[Prompt]:
    """What is to be generated."""
    return [choice.prompt for choice in self.choices]

  async def response(self, generation: Generation) -> dict[str, Any]:
    """Returns the response to a request that is not streamed."""
    async for number, event in generation.events():
      self.choices[number].apply(event)
    choices = []
    for number, choice in enumerate(self.choices):
      message = {'role': 'assistant', 'content': choice.text, 'refusal': None,
                 'toolformer_calls': tool_calls(choice.calls)}
      logprobs = self._logprobs(choice.logprobs) if self.fields.logprobs else None
      choices.append({'index': number, 'message': message, 'logprobs': logprobs,
                      'finish_reason': choice.output and choice.output.finish_reason})
    return {**self._head('chat.completion'), 'choices': choices,
            'usage': usage(self.choices, len(self.choices))}

  async def stream(self, generation: Generation) -> AsyncIterator[str]:
    """Yields the events of a streamed response."""
    for number in range(len(self.choices)):
      yield self._chunk(number, {'role': 'assistant', 'content': ''})
    async for number, event in generation.events():
      delta = self.choices[number].apply(event)
      if delta and delta.output:
        yield self._chunk(number, {}, finish_reason=delta.output.finish_reason)
      elif delta:
        logprobs = self._logprobs(delta.logprobs) if delta.logprobs else None
        yield self._chunk(number, _delta(delta.text, delta.calls), logprobs=logprobs)
    if self.fields.stream_options and self.fields.stream_options.include_usage:
      yield sse.event({**self._head('chat.completion.chunk'), 'choices': [],
                       'usage': usage(self.choices, len(self.choices))})
    yield sse.DONE

  def _head(self, kind: str) -> dict[str, Any]:
    return {'id': self.id, 'object': kind, 'created': self.created, 'model': self.fields.model}

  def _chunk(self, index: int, delta: dict[str, Any], **fields: Any) -> str:
    choice = {'index': index, 'delta': delta, 'logprobs': None, 'finish_reason': None, **fields}
    return sse.event({**self._head('chat.completion.chunk'), 'choices': [choice]})

  def _logprobs(self, tokens: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """Returns the field `logprobs` for these tokens."""
    tokenizer, top = self.service.model.tokenizer, self.fields.top_logprobs or 0
    def entry(token: int, logprob: float | None) -> dict[str, Any]:
      return {'token': tokenizer.decode([token]), 'logprob': logprob,
              'bytes': list(tokenizer.token_bytes[token])}
    return {'content': [{**entry(token.token, token.logprob),
                         'top_logprobs': [entry(*pair) for pair in token.top[:top]]}
                        for token in tokens], 'refusal': None}


def prepare(service: Service, template: ChatTemplate, fields: ChatRequest,
            handles: Sequence[str] = ()) -> Chat:
  """Returns what a request asks for; `handles` are those of its pictures and sounds.

  Raises:
    ApiError: the request is invalid or exceeds a limit.
  """
  n = fields.n or 1
  service.check_n(n)
  if fields.top_logprobs and not fields.logprobs:
    raise ApiError(400, 'top_logprobs needs logprobs', param='top_logprobs', code='invalid_value')
  if fields.tool_choice == 'none':
    fields = fields.model_copy(update={'allowed_tools': []})
  ids = template.encode(chat_messages(fields.messages, iter(handles)))
  asked = fields.max_completion_tokens or fields.max_tokens
  max_tokens = service.max_tokens(asked, service.limits.max_tokens, template.prompt_tokens(ids),
                                  'max_tokens')
  stop = tuple(dict.fromkeys((*service.stop(fields.stop), *template.stop)))
  params = service.params(fields, max_tokens=max_tokens, seed=fields.seed, stop=stop,
                          min_tokens=fields.min_tokens)
  adapter = service.adapter(fields.model)
  choices = [Choice(Prompt(ids, reseeded(params, i), template.add_start_token, adapter,
                           bool(fields.logprobs)),
                    service.tools_in_text(fields.tools_in_text)) for i in range(n)]
  return Chat(service, fields, choices, f'chatcmpl-{uuid.uuid4().hex}', int(time.time()))


def _delta(text: str, calls: Sequence[Any]) -> dict[str, Any]:
  return {'content': text, **({'toolformer_calls': tool_calls(calls)} if calls else {})}
