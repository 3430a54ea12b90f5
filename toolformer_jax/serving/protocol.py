"""The requests that clients send, checked field by field."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolformer_jax.serving.errors import ApiError

# Fields that change nothing here: who asks, and hints to services with accounts and caches.
_IGNORED = frozenset({
    'user', 'metadata', 'store', 'service_tier', 'safety_identifier', 'prompt_cache_key',
    'prompt_cache_retention', 'parallel_tool_calls', 'include', 'stream_options'})
# What is not supported may be sent as long as it asks for nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    'audio': (None,), 'background': (None, False), 'best_of': (None, 1), 'conversation': (None,),
    'frequency_penalty': (None, 0), 'function_call': (None, 'none', 'auto'),
    'functions': (None, []),
    'logit_bias': (None, {}), 'modalities': (None, ['text']), 'prediction': (None,),
    'presence_penalty': (None, 0), 'previous_response_id': (None,), 'prompt': (None,),
    'reasoning': (None,), 'reasoning_effort': (None,), 'max_tool_calls': (None,),
    'response_format': (None, {'type': 'text'}), 'suffix': (None, ''),
    'text': (None, {}, {'format': {'type': 'text'}}), 'truncation': (None, 'disabled'),
    'verbosity': (None,),
    'web_search_options': (None,), 'top_logprobs': (None, 0)}
_LOGPROBS = 'message.output_text.logprobs'  # of `include`, whose other values are hints

Request = TypeVar('Request', bound='GenerationFields')


class _Strict(BaseModel):
  model_config = ConfigDict(extra='forbid', strict=True, allow_inf_nan=False)


class _Lenient(BaseModel):
  """A message: clients send back what they got, with more fields than matter."""

  model_config = ConfigDict(extra='ignore', strict=True)


class StreamOptions(_Lenient):
  """What a stream contains besides its text."""

  include_usage: bool | None = None


class GenerationFields(_Strict):
  """What all protocols share; the fields after `stream` are our own."""

  model: str
  temperature: Annotated[float, Field(ge=0, le=2)] | None = None
  top_p: Annotated[float, Field(ge=1e-6, le=1)] | None = None
  stream: bool | None = None
  allowed_tools: list[str] | None = None
  date: str | None = None
  timezone: str | None = None


class _TextFields(GenerationFields):
  n: Annotated[int, Field(ge=1)] | None = None
  stop: str | list[str] | None = None
  seed: int | None = None
  stream_options: StreamOptions | None = None
  min_tokens: Annotated[int, Field(ge=0)] | None = None
  tools_in_text: bool | None = None


class CompletionRequest(_TextFields):
  """The body of /v1/completions."""

  prompt: str | list[str] | list[int] | list[list[int]]
  max_tokens: Annotated[int, Field(ge=0)] | None = None
  echo: bool | None = None
  logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class ImageUrl(_Lenient):
  """The address of a picture in a chat."""

  url: str


class InputAudio(_Lenient):
  """A sound, in base64. What format it has is told by its content."""

  data: str


class Part(_Lenient):
  """A part of a message, in chats and responses."""

  type: Literal['text', 'input_text', 'output_text', 'refusal', 'image_url', 'input_image',
                'input_audio']
  text: str | None = None
  refusal: str | None = None
  image_url: ImageUrl | str | None = None
  input_audio: InputAudio | None = None


class Message(_Lenient):
  """A message of a conversation."""

  role: Literal['system', 'developer', 'user', 'assistant']
  content: str | list[Part] | None = None


class ChatRequest(_TextFields):
  """The body of /v1/chat/completions."""

  messages: Annotated[list[Message], Field(min_length=1)]
  max_tokens: Annotated[int, Field(ge=1)] | None = None
  max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
  logprobs: bool | None = None
  top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
  tool_choice: Literal['none', 'auto'] | None = None
  tools: Annotated[list[Any], Field(max_length=0)] | None = None


class McpCallItem(_Lenient):
  """A call of an earlier response."""

  type: Literal['mcp_call']
  name: str
  arguments: str
  output: str | None = None


class MessageItem(Message):
  """A message of a conversation."""

  type: Literal['message'] | None = None


class McpTool(_Lenient):
  """Says which of this server's tools a response may call."""

  type: Literal['mcp']
  server_label: Literal['toolformer']
  allowed_tools: list[str] | None = None


class ResponsesRequest(GenerationFields):
  """The body of /v1/responses."""

  input: str | Annotated[list[McpCallItem | MessageItem], Field(min_length=1)]
  instructions: str | None = None
  max_output_tokens: Annotated[int, Field(ge=1)] | None = None
  tool_choice: Literal['none', 'auto'] | None = None
  tools: list[McpTool] | None = None


def parse(kind: type[Request], body: bytes) -> Request:
  """Returns the request of a body.

  Raises:
    ApiError: it is no JSON, or a field is missing, unknown or wrong.
  """
  try:
    fields = pydantic_core.from_json(body, allow_inf_nan=False)
  except ValueError as error:
    raise ApiError(400, f'the body is no JSON: {error}', code='invalid_json') from None
  if not isinstance(fields, dict):
    raise ApiError(400, 'the body must be a JSON object', code='invalid_json')
  try:
    return kind.model_validate(_supported(kind, fields))
  except ValidationError as error:
    raise _explained(error) from None


def _supported(kind: type[Request], fields: dict[str, Any]) -> dict[str, Any]:
  """Returns the fields without those that may be ignored.

  Raises:
    ApiError: a field asks for what is not supported.
  """
  kept = {}
  for name, value in fields.items():
    if name in kind.model_fields:
      kept[name] = value
    elif name in _NEUTRAL:
      if value not in _NEUTRAL[name]:
        raise ApiError(400, f'{name} is not supported by this server', param=name,
                       code='unsupported_parameter')
    elif name == 'include' and isinstance(value, list) and _LOGPROBS in value:
      raise ApiError(400, 'responses have no log-probabilities; use completions or chat '
                     'completions', param=name, code='unsupported_parameter')
    elif name not in _IGNORED:
      raise ApiError(400, f'Unrecognized request argument supplied: {name[:100]}', param=name[:100],
                     code='unknown_parameter')
  return kept


def _explained(error: ValidationError) -> ApiError:
  """Returns what is wrong with one field."""
  found = error.errors(include_url=False, include_context=False, include_input=False)
  # For a field of several types, the error of the type that was meant.
  first = next((problem for problem in found if not problem['type'].endswith('_type')), found[0])
  where = [str(part) for part in first['loc'] if part != 'str' and '[' not in str(part)]
  param = where[0] if where else None
  if param == 'tools':
    return ApiError(400, 'tools run on this server: narrow them down by allowed_tools, or in '
                    "responses by {'type': 'mcp', 'server_label': 'toolformer', 'allowed_tools': "
                    '[...]}', param=param, code='unsupported_parameter')
  return ApiError(400, f'{".".join(where)}: {first["msg"]}', param=param,
                  code='missing_required_parameter' if first['type'] == 'missing'
                  else 'invalid_value')
