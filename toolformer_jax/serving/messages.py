"""The messages of chats and responses as a template takes them: a role and a text each."""

import json
from collections.abc import Iterator, Sequence

from toolformer_jax.calls import Call, CallSyntax
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.media import is_medium
from toolformer_jax.serving.protocol import McpCallItem, Message, MessageItem, Part
from toolformer_jax.tools.mcp_arguments import parse_object


def chat_messages(messages: Sequence[Message], handles: Iterator[str]) -> list[dict[str, str]]:
  """Returns {'role': ..., 'content': ...} of each message.

  Where a message has a picture or sound, its text has the next one of `handles`.
  """
  return [{'role': 'system' if message.role == 'developer' else message.role,
           'content': _text(message.content, handles)} for message in messages]


def response_messages(items: Sequence[McpCallItem | MessageItem], syntax: CallSyntax,
                      handles: Iterator[str]) -> list[dict[str, str]]:
  """Returns the messages of a response's input, as `chat_messages` does.

  A call is written back into the assistant's text.

  Raises:
    ApiError: a call cannot be written.
  """
  messages: list[dict[str, str]] = []
  for item in items:
    new = (_call_text(item, syntax) if isinstance(item, McpCallItem)
           else chat_messages([item], handles)[0])
    if messages and messages[-1]['role'] == new['role'] == 'assistant':
      messages[-1]['content'] += new['content']
    else:
      messages.append(new)
  return messages


def call_arguments(argument: str) -> str:
  """Returns the argument of a call as clients of the protocol expect it: as a JSON object.

  An argument that is one, as MCP tools may have it, is left as it is.
  """
  is_object = parse_object(argument) is not None and _argument(argument) == argument
  return argument if is_object else json.dumps({'argument': argument}, ensure_ascii=False)


def _argument(arguments: str) -> str:
  """Returns the argument of a call from what `call_arguments` has made of it."""
  found = parse_object(arguments)
  only = found.get('argument') if found and len(found) == 1 else None
  return only if isinstance(only, str) else arguments


def _call_text(item: McpCallItem, syntax: CallSyntax) -> dict[str, str]:
  """Returns what a call was in the text: nothing if it had no result."""
  text = ''
  if item.output is not None:
    try:
      text = syntax.linearise(Call(item.name, _argument(item.arguments), item.output))
    except ValueError as error:
      raise ApiError(400, f'input: {error}', param='input', code='invalid_value') from None
  return {'role': 'assistant', 'content': text}


def _text(content: str | Sequence[Part] | None, handles: Iterator[str]) -> str:
  if content is None or isinstance(content, str):
    return content or ''
  text, after_handle = '', False
  for part in content:
    new = next(handles) if is_medium(part) else part.text or part.refusal or ''
    if new and text and (is_medium(part) or after_handle) and not (
        text[-1].isspace() or new[0].isspace()):
      text += ' '  # a handle is a word of its own
    text, after_handle = text + new, is_medium(part)
  return text
