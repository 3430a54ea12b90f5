"""The routes of the server."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import prometheus_client
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import toolformer_jax
from toolformer_jax.serving import chat, completions, responses
from toolformer_jax.serving.chat_template import ChatTemplate
from toolformer_jax.serving.engine_thread import EngineThread
from toolformer_jax.serving.errors import ApiError, internal_error
from toolformer_jax.serving.generation import Generation, until_disconnected
from toolformer_jax.serving.guard import read_body
from toolformer_jax.serving.logprobs import Scorer
from toolformer_jax.serving.media import RequestMedia
from toolformer_jax.serving.metrics import Metrics
from toolformer_jax.serving.playground import CONTENT_SECURITY_POLICY, playground_page
from toolformer_jax.serving.protocol import (
  ChatRequest,
  CompletionRequest,
  GenerationFields,
  ResponsesRequest,
  parse,
)
from toolformer_jax.serving.request_log import RequestLog
from toolformer_jax.serving.service import Service
from toolformer_jax.serving.sse import EventStream

Answer = completions.Completion | chat.Chat | responses.ModelResponse
# Gets the fields of a request and the handles of its media.
Prepare = Callable[[Any, Sequence[str]], Answer]


@dataclass(frozen=True)
class AppState:
  """The objects that the routes share."""

  service: Service
  thread: EngineThread
  scorer: Scorer
  template: ChatTemplate
  metrics: Metrics
  request_log: RequestLog
  started: int


def make_app(state: AppState) -> Starlette:
  """Returns the application, without a guard."""
  service, scorer, template = state.service, state.scorer, state.template
  def post(path: str, kind: type[GenerationFields], prepare: Prepare) -> Route:
    async def answer(request: Request) -> Response:
      return await _answer(state, request, kind, prepare)
    return Route(path, answer, methods=['POST'])
  def get(path: str, respond: Callable[[], Response]) -> Route:
    async def answer(request: Request) -> Response:
      return respond()
    return Route(path, answer, methods=['GET'])
  async def one_model(request: Request) -> Response:
    name = request.path_params['name']
    service.adapter(name)
    return JSONResponse(_model(state, name))
  return Starlette(
      routes=[
          post('/v1/completions', CompletionRequest,
               lambda fields, _: completions.prepare(service, scorer, fields)),
          post('/v1/chat/completions', ChatRequest,
               lambda fields, handles: chat.prepare(service, template, fields, handles)),
          post('/v1/responses', ResponsesRequest,
               lambda fields, handles: responses.prepare(service, template, fields, handles)),
          get('/v1/models', lambda: JSONResponse({
              'object': 'list', 'data': [_model(state, name) for name in service.names]})),
          Route('/v1/models/{name:path}', one_model),
          get('/health', lambda: _health(state)),
          get('/metrics', lambda: Response(
              prometheus_client.generate_latest(state.metrics.registry),
              media_type=prometheus_client.CONTENT_TYPE_LATEST)),
          get('/version', lambda: JSONResponse({'version': toolformer_jax.__version__})),
          get('/', lambda: HTMLResponse(playground_page(service), headers={
              'Content-Security-Policy': CONTENT_SECURITY_POLICY,
              'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
              'Cache-Control': 'no-store'}))],
      exception_handlers={
          ApiError: _api_error, HTTPException: _http_error, Exception: _internal_error})


async def _answer(state: AppState, request: Request, kind: type[GenerationFields],
                  prepare: Prepare) -> Response:
  """Answers a request for texts."""
  service = state.service
  body = await read_body(request, service.max_body_bytes(kind))
  # On a thread: a long prompt takes a while to encode, and other streams shall go on meanwhile.
  fields = await run_in_threadpool(parse, kind, body)
  service.adapter(fields.model)  # before anything slow
  media = await run_in_threadpool(RequestMedia.of, fields, service.limits,
                                  has_tools=bool(service.tool_names))
  with contextlib.ExitStack() as stack:
    stack.callback(media.close)
    answer = await run_in_threadpool(prepare, fields, media.handles)
    if answer.scores_prompts:
      stack.enter_context(state.scorer.admit())
    context = replace(service.context(fields), media=media.table)
    tools = service.tools(answer.fields.allowed_tools) if answer.prompts else ()
    generation = Generation(state.thread, answer.prompts, context, tools)
    closing = _closing(state, answer, generation, stack.pop_all())
  if fields.stream:
    return _Stream(answer.stream(generation), closing)
  with closing:
    return JSONResponse(await until_disconnected(request.receive, answer.response(generation)))


class _Stream(EventStream):
  """The streamed response to a request for texts."""

  def __init__(self, events: AsyncIterator[str], closing: AbstractContextManager[None]):
    super().__init__(events)
    self._closing = closing

  async def __call__(self, *arguments: Any) -> None:
    with self._closing:
      await super().__call__(*arguments)


@contextlib.contextmanager
def _closing(state: AppState, answer: Answer, generation: Generation,
             held: contextlib.ExitStack) -> Iterator[None]:
  """Frees what a request holds when its response has ended, however it has, and logs it."""
  begin = time.perf_counter()
  try:
    yield
  finally:
    generation.close()
    held.close()
    state.request_log.write(answer.id, answer.choices, time.perf_counter() - begin,
                            aborted=bool(answer.prompts))


def _health(state: AppState) -> Response:
  """Says whether the server takes requests: not before its programs are compiled."""
  status = state.thread.state
  return JSONResponse({'status': status}, 200 if status == 'ready' else 503)


def _model(state: AppState, name: str) -> dict[str, Any]:
  """Describes the model, or one of its adapters; the model is the `parent` of these, as in vLLM."""
  service = state.service
  return {'id': name, 'object': 'model', 'created': state.started, 'owned_by': 'toolformer',
          'parent': None if name == service.name else service.name,
          'max_model_len': service.max_model_len, 'tools': list(service.tool_names)}


async def _api_error(request: Request, error: Exception) -> Response:
  if not isinstance(error, ApiError):
    raise error
  return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
  """Answers a request for a path that does not exist, or with a method that it does not take."""
  if not isinstance(error, HTTPException):
    raise error
  message = f'{request.method} {request.url.path}: {error.detail}'
  if error.status_code == 404:
    message += f'; this server has {", ".join(route.path for route in request.app.routes)}'
  code = 'method_not_allowed' if error.status_code == 405 else 'not_found'
  response = ApiError(error.status_code, message, code=code).response()
  response.headers.update(error.headers or {})  # such as Allow
  return response


async def _internal_error(request: Request, error: Exception) -> Response:
  return internal_error().response()
