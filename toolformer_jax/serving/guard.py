"""What every request must pass before it reaches a route: its host, its key, its size."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import pathlib
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from toolformer_jax.errors import UserError
from toolformer_jax.serving.errors import ApiError

_OPEN = '/health'  # probes have no key
_BODY_S = 60.0
# A page of another site can make its own host name resolve to this machine (DNS rebinding), but the
# browser then sends that name as Host.
_LOCAL = re.compile(r'(127\.0\.0\.1|localhost|\[::1\])(:\d+)?', re.IGNORECASE)


def read_keys(path: pathlib.Path) -> list[bytes]:
  """Returns the keys of a file, one a line, as hashes.

  Raises:
    UserError: the file cannot be read, or holds none.
  """
  try:
    lines = path.read_bytes().splitlines()
  except OSError as error:
    raise UserError(f'--api_key_file {path}: {error.strerror}') from error
  keys = [_hash(line.strip()) for line in lines if line.strip()]
  if not keys:
    raise UserError(f'--api_key_file {path} holds no key; write one a line')
  return keys


class Guard:
  """Refuses requests without a key, or from pages of other sites."""

  def __init__(self, app: ASGIApp, keys: Sequence[bytes], only_local: bool):
    """Guards `app`.

    Args:
      app: answers what passes.
      keys: hashes of the keys that open; none for a server that is open to all.
      only_local: whether the server is for this machine alone. Without keys its requests must
        name it as their host.
    """
    self._app, self._keys, self._only_local = app, keys, only_local

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or refuses it."""
    if scope['type'] == 'http' and scope['path'] != _OPEN:
      error = self._refusal(Headers(scope=scope))
      if error:
        await error.response()(scope, receive, send)
        return
    await self._app(scope, receive, send)

  def _refusal(self, headers: Headers) -> ApiError | None:
    if self._keys:
      given = _hash(_key(headers.get('authorization', '')))
      # All are compared, each in constant time.
      if not any([hmac.compare_digest(given, key) for key in self._keys]):
        return ApiError(401, 'Incorrect API key provided', code='invalid_api_key')
    elif self._only_local and not _LOCAL.fullmatch(headers.get('host', '')):
      return ApiError(403, 'this server is for programs on the same machine', code='wrong_host')
    return None


async def read_body(request: Request, limit: int) -> bytes:
  """Returns the body of a request.

  Raises:
    ApiError: it is too large, too slow or not complete, or no JSON by its header.
  """
  # Pages of other sites cannot send this type without asking first, which is not granted.
  media_type = request.headers.get('content-type', '').partition(';')[0].strip().lower()
  if media_type != 'application/json':
    raise ApiError(415, 'send JSON, with the header Content-Type: application/json',
                   code='unsupported_media_type')
  too_large = ApiError(413, f'the body is larger than {limit} bytes', code='body_too_large')
  length = request.headers.get('content-length', '')
  if length.isdecimal() and int(length) > limit:
    raise too_large
  body = bytearray()
  try:
    async with asyncio.timeout(_BODY_S):
      async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
          raise too_large
  except TimeoutError:
    raise ApiError(408, f'the body did not come within {_BODY_S:.0f} seconds') from None
  except ClientDisconnect:
    raise ApiError(499, 'the client has closed the connection') from None
  return bytes(body)


def _hash(key: bytes) -> bytes:
  """Returns a hash, so that neither the time of a comparison nor a dump of memory reveals a key."""
  return hashlib.sha256(key).digest()


def _key(header: str) -> bytes:
  """Returns the key of an Authorization header: Bearer, or the password of Basic for browsers."""
  kind, _, value = header.partition(' ')
  if kind.lower() == 'bearer':
    return value.strip().encode('latin-1')  # the bytes that were sent, as headers are decoded
  if kind.lower() == 'basic':
    try:
      return base64.b64decode(value, validate=True).partition(b':')[2]
    except binascii.Error:
      return b''
  return b''
