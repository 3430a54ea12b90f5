"""The pictures and sounds of a request: parts of its messages become handles of its media table.

They come in the request itself. No address is fetched and no file is opened that a client names.
"""

import base64
import binascii
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from toolformer_jax.errors import UserError
from toolformer_jax.media.table import MediaTable
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.protocol import (
  ChatRequest,
  GenerationFields,
  Message,
  Part,
  ResponsesRequest,
)


@dataclass(frozen=True)
class RequestMedia:
  """The media of one request.

  Attributes:
    table: what its tools see.
    folder: holds the files until the request has ended; None without media.
  """

  table: MediaTable = field(default_factory=MediaTable)
  folder: tempfile.TemporaryDirectory | None = None

  @classmethod
  def of(cls, fields: GenerationFields, limits: ServingConfig, *, has_tools: bool) -> Self:
    """Returns the media of a request's messages, in their order.

    Args:
      fields: of the request.
      limits: of their number and size.
      has_tools: whether the server has tools, which alone can read them.

    Raises:
      ApiError: they are too many or too large, or one is no picture, sound or video.
    """
    parts = [part for message in _messages(fields) for part in _parts(message) if is_medium(part)]
    if not parts:
      return cls()
    param = 'messages' if isinstance(fields, ChatRequest) else 'input'
    try:
      return cls._of_parts(parts, limits, has_tools)
    except UserError as error:
      raise ApiError(400, str(error), param=param, code='invalid_value') from None

  @classmethod
  def _of_parts(cls, parts: Sequence[Part], limits: ServingConfig, has_tools: bool) -> Self:
    if not has_tools:
      raise UserError('this server has no tool that reads pictures or sounds')
    contents = list(map(_content, parts))
    if len(contents) > limits.max_media:
      raise UserError(f'a request may have {limits.max_media} pictures and sounds at most, not '
                      f'{len(contents)}')
    if (size := sum(map(len, contents))) > limits.max_media_bytes:
      raise UserError(f'the pictures and sounds of a request may have {limits.max_media_bytes} '
                      f'bytes at most, not {size}')
    folder = tempfile.TemporaryDirectory(prefix='toolformer-')
    try:
      return cls(MediaTable.from_bytes(contents, folder.name), folder)
    except UserError:
      folder.cleanup()
      raise

  @property
  def handles(self) -> list[str]:
    """The handles, in the order of the parts."""
    return [handle for handle, _ in self.table]

  def close(self) -> None:
    """Deletes the files."""
    if self.folder:
      self.folder.cleanup()


def is_medium(part: Part) -> bool:
  """Returns whether a part of a message is a picture or sound."""
  return part.type in ('image_url', 'input_image', 'input_audio')


def _messages(fields: GenerationFields) -> Sequence[Message]:
  if isinstance(fields, ChatRequest):
    return fields.messages
  if isinstance(fields, ResponsesRequest) and not isinstance(fields.input, str):
    return [item for item in fields.input if isinstance(item, Message)]
  return []


def _parts(message: Message) -> Sequence[Part]:
  return message.content if isinstance(message.content, list) else []


def _content(part: Part) -> bytes:
  """Returns the bytes of a picture or sound."""
  if part.type == 'input_audio':
    return _decoded(part.input_audio.data if part.input_audio else '')
  url = part.image_url if isinstance(part.image_url, str) else (
      part.image_url.url if part.image_url else '')
  head, comma, data = url.partition(',')
  if not head.lower().startswith('data:'):
    raise UserError('send a picture as a data: URL; this server fetches no addresses and opens no '
                    'files')
  if not comma or not head.lower().endswith(';base64'):
    raise UserError('a data: URL must have the form data:image/png;base64,...')
  return _decoded(data)


def _decoded(data: str) -> bytes:
  try:
    return base64.b64decode(data, validate=True)
  except (binascii.Error, ValueError):
    raise UserError('the content of a picture or sound is not base64') from None
