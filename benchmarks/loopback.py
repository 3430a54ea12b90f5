"""Our server, on a thread of this process."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.serving.app import AppState
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.server import Server, bind, make_app_state, open_executor
from toolformer_jax.tools.base import Tool
from toolformer_jax.tools.executor import ExecutorConfig


@contextlib.contextmanager
def serve(model: LanguageModel, tools: Sequence[Tool], *, name: str, generation: GenerationConfig,
          engine_config: EngineConfig, executor_config: ExecutorConfig = ExecutorConfig(),
          limits: ServingConfig = ServingConfig()) -> Iterator[tuple[int, AppState]]:
  """Yields the port of a server that is ready, and what its routes share; see `make_app_state`."""
  with open_executor(tools, executor_config, engine_config.slots, limits,
                     DEFAULT_SYNTAX) as executor:
    app_state = make_app_state(model, executor, name=name, generation=generation,
                               engine_config=engine_config, limits=limits)
    bound = bind('127.0.0.1', 0)
    server = Server(app_state, bound)
    thread = threading.Thread(target=server.run)
    begin = time.perf_counter()
    thread.start()
    while app_state.thread.state == 'starting':
      time.sleep(0.1)
    print(f'ready after {time.perf_counter() - begin:.0f} s', file=sys.stderr)
    try:
      yield bound.getsockname()[1], app_state
    finally:
      server.end()
      thread.join()
