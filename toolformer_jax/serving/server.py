"""Runs the server: bind, compile, serve, drain, stop."""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.prefix_cache import PrefixCache
from toolformer_jax.models.adapter_stack import adapter_names
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.serving.app import AppState, make_app
from toolformer_jax.serving.chat_template import ChatTemplate
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.engine_thread import EngineThread
from toolformer_jax.serving.guard import Guard
from toolformer_jax.serving.logprobs import Scorer
from toolformer_jax.serving.metrics import Metrics
from toolformer_jax.serving.redaction import redacted_tool, redactor
from toolformer_jax.serving.request_log import RequestLog
from toolformer_jax.serving.service import Service
from toolformer_jax.tools.base import Tool
from toolformer_jax.tools.executor import Executor, ExecutorConfig

log = logging.getLogger(__name__)

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
_MAX_MODEL_LEN = 2048  # where the configuration has none
_TICK_S = 0.05
_KEEP_ALIVE_S = 75  # longer than proxies and clients keep idle connections, so that they close them
_FLUSH_S = 5  # for responses that are complete to reach their clients
_LAST_STEP_S = 1  # for the step that runs at a second signal


def bind(host: str, port: int) -> socket.socket:
  """Returns a socket for the server, which is bound before anything slow is loaded.

  Raises:
    UserError: the address is not available.
  """
  try:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
  except OSError as error:
    raise UserError(f'cannot serve on {host} port {port} ({error.strerror or error}); '
                    'choose another --host or --port') from error
  return bound


@contextlib.contextmanager
def open_executor(tools: Sequence[Tool], config: ExecutorConfig, slots: int,
                  limits: ServingConfig, syntax: CallSyntax) -> Iterator[Executor | None]:
  """Opens what runs the tools; None without any.

  It has threads for the calls of all slots, and as many for calls whose client has gone: none
  waits for the tool of another.
  """
  if not tools:
    yield None
    return
  if limits.redact_tools:
    tools = [redacted_tool(tool, redactor(limits)) for tool in tools]
  config = dataclasses.replace(config, workers=min(1000, max(config.workers, 2 * slots)))
  with Executor(tools, config, syntax=syntax) as executor:
    yield executor


def make_app_state(model: LanguageModel, executor: Executor | None, *, name: str,
                   generation: GenerationConfig = GenerationConfig(),
                   engine_config: EngineConfig = EngineConfig(),
                   limits: ServingConfig = ServingConfig(), syntax: CallSyntax = DEFAULT_SYNTAX
                   ) -> AppState:
  """Returns the objects that the routes share; the thread of the engine is not started yet.

  Args:
    model: generates the texts.
    executor: runs the tools that texts may call; None for no tools.
    name: of the model, for clients.
    generation: the settings of requests that say nothing else.
    engine_config: how many texts at the same time, and how long.
    limits: of requests.
    syntax: how calls are spelled.

  Raises:
    UserError: the model's chat template is broken, or it has no start token for calls.
  """
  longest = min(model.config.max_tokens, engine_config.max_model_len or _MAX_MODEL_LEN)
  engine_config = dataclasses.replace(engine_config, max_model_len=longest, few_shapes=True)
  def make_engine() -> Engine:
    gib = limits.prefix_cache_gib
    prefix_cache = PrefixCache(int(gib * 2**30)) if gib else None
    return Engine(model, engine_config, executor, syntax=syntax, prefix_cache=prefix_cache)
  make_engine()  # reports an unusable model at once
  max_chars = longest * max(map(len, model.tokenizer.token_bytes))
  metrics = Metrics(name, adapter_names(model), executor)
  scorer = Scorer(model, longest, engine_config.slots + limits.max_waiting)
  service = Service(
      model, name, tuple(executor.tool_names) if executor else (), generation, limits, syntax,
      longest, max_chars)
  thread = EngineThread(make_engine, slots=engine_config.slots, max_waiting=limits.max_waiting,
                        metrics=metrics, warm_up=scorer.warm_up)
  template = ChatTemplate(model.tokenizer, max_chars)
  return AppState(service, thread, scorer, template, metrics,
                  RequestLog(limits, model.tokenizer), int(time.time()))


class Server:
  """Serves until it is asked to stop."""

  def __init__(self, app_state: AppState, bound: socket.socket, *, keys: Sequence[bytes] = (),
               only_local: bool = True, drain_s: float = 30.0):
    """Prepares the server.

    Args:
      app_state: what it serves.
      bound: the socket to listen on.
      keys: hashes of keys, see `guard.read_keys`; none for a server that is open to all.
      only_local: whether the socket is this machine's alone.
      drain_s: how long requests may go on after the server was asked to stop.
    """
    self._app_state, self._bound, self._drain_s = app_state, bound, drain_s
    self._signals = 0
    app = Guard(make_app(app_state), keys, only_local)
    self._server = _Uvicorn(uvicorn.Config(
        app, log_config=None, access_log=False, lifespan='off', server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S, timeout_graceful_shutdown=_FLUSH_S))

  def end(self) -> None:
    """Takes no further request and ends when those that run have; the second time, at once."""
    self._signals += 1

  def run(self) -> int:
    """Serves, and returns the exit code: 0, or 1 if the engine failed or the end was forced."""
    asyncio.run(self._run())
    thread = self._app_state.thread
    failed = thread.state == 'failed' or self._signals > 1
    thread.stop()
    if not thread.join(_LAST_STEP_S if self._signals > 1 else _FLUSH_S):
      # It compiles: Python would crash if it ended while a thread does.
      logging.shutdown()
      os._exit(int(failed))
    self._app_state.scorer.close()
    return int(failed)

  async def _run(self) -> None:
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, self.end)
    self._app_state.thread.start(functools.partial(_call_in, asyncio.get_running_loop()))
    watch = asyncio.create_task(self._watch())
    await self._server.serve(sockets=[self._bound])
    watch.cancel()

  async def _watch(self) -> None:
    """Waits for the signal to end, drains, and stops the HTTP server."""
    thread = self._app_state.thread
    while not self._signals and thread.state != 'failed':
      await asyncio.sleep(_TICK_S)
    starting = thread.state == 'starting'
    thread.drain()
    log.info('draining: %d requests run, %d wait', thread.num_running, thread.num_waiting)
    end = time.monotonic() + self._drain_s
    while (not starting and not thread.join(0) and self._signals < 2
           and time.monotonic() < end):
      await asyncio.sleep(_TICK_S)
    thread.stop()
    # Finished texts may still have to be scored, and sent to slow clients.
    self._server.config.timeout_graceful_shutdown = max(
        _FLUSH_S, math.ceil(end - time.monotonic()))
    self._server.force_exit = self._signals > 1
    self._server.should_exit = True
    while self._signals < 2:  # a second signal does not wait for slow clients
      await asyncio.sleep(_TICK_S)
    self._server.force_exit = True


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
  """Has a function called by an event loop, from another thread."""
  with contextlib.suppress(RuntimeError):  # the loop has ended before the engine
    loop.call_soon_threadsafe(function)


class _Uvicorn(uvicorn.Server):
  """An HTTP server that leaves signals to us: its own handlers would end it without draining."""

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    """Captures none."""
    yield
