"""Errors in the form that clients of the OpenAI protocol know."""

from typing import Any

from starlette.responses import JSONResponse


class ApiError(Exception):
  """A request cannot be answered; becomes OpenAI's error object."""

  def __init__(self, status: int, message: str, *, param: str | None = None,
               code: str | None = None, retry_after_s: int | None = None):
    """Makes an error with an HTTP status.

    Args:
      status: of the response.
      message: says what is wrong, and what to do.
      param: the field that is wrong.
      code: for programs.
      retry_after_s: when it may be tried again.
    """
    super().__init__(message)
    self.status, self.message, self.param, self.code = status, message, param, code
    self.retry_after_s = retry_after_s

  def body(self) -> dict[str, Any]:
    """Returns OpenAI's error object."""
    return {'error': {'message': self.message, 'type': _kind(self.status), 'param': self.param,
                      'code': self.code}}

  def response(self) -> JSONResponse:
    """Returns the response."""
    headers = {}
    if self.retry_after_s is not None:
      headers['Retry-After'] = str(self.retry_after_s)
    if self.status == 401:
      headers['WWW-Authenticate'] = 'Basic realm="toolformer", charset="UTF-8"'
    return JSONResponse(self.body(), self.status, headers)


def internal_error() -> ApiError:
  """Returns the error of a request that has met a bug."""
  return ApiError(500, 'the server has a bug; its log has more', code='internal_error')


def _kind(status: int) -> str:
  kinds = {401: 'authentication_error', 403: 'permission_error', 429: 'rate_limit_error'}
  return kinds.get(status, 'server_error' if status >= 500 else 'invalid_request_error')
