"""The messages of chats and responses as a template takes them: a role and a text each."""

from collections.abc import Sequence

from toolformer_jax.calls import Call, CallSyntax
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.protocol import McpCallItem, Message, MessageItem, Part


def chat_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
  """Returns {'role': ..., 'content': ...} of each message.

  Raises:
    ApiError: a message has a part that is not text.
  """
  return [{'role': 'system' if message.role == 'developer' else message.role,
           'content': _text(message.content)} for message in messages]


def response_messages(items: Sequence[McpCallItem | MessageItem], syntax: CallSyntax
                      ) -> list[dict[str, str]]:
  """Returns the messages of a response's input.

  A call is written back into the assistant's text.

  Raises:
    ApiError: a message has a part that is not text.
  """
  messages: list[dict[str, str]] = []
  for item in items:
    new = (_call_text(item, syntax) if isinstance(item, McpCallItem) else chat_messages([item])[0])
    if messages and messages[-1]['role'] == new['role'] == 'assistant':
      messages[-1]['content'] += new['content']
    else:
      messages.append(new)
  return messages


def _call_text(item: McpCallItem, syntax: CallSyntax) -> dict[str, str]:
  """Returns what a call was in the text: nothing if it had no result."""
  text = ''
  if item.output is not None:
    try:
      text = syntax.linearise(Call(item.name, item.arguments, item.output))
    except ValueError as error:
      raise ApiError(400, f'input: {error}', param='input', code='invalid_value') from None
  return {'role': 'assistant', 'content': text}


def _text(content: str | Sequence[Part] | None) -> str:
  if content is None or isinstance(content, str):
    return content or ''
  return ''.join(map(_part, content))


def _part(part: Part) -> str:
  if part.type in ('image_url', 'input_image', 'input_audio'):
    raise ApiError(400, 'this server has no tool that reads pictures or sounds', param='messages',
                   code='unsupported_parameter')
  return part.text or part.refusal or ''
