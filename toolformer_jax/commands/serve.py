"""Serves a model to clients of the OpenAI protocol; tools are called in the middle of its texts.

The address is printed. It has /v1/completions, /v1/chat/completions, /v1/responses and /v1/models,
/metrics for Prometheus, /health, which says 503 until all programs are compiled, and a page to try
it out at /. SIGTERM or Ctrl-C lets running requests end; a second one stops at once.

Examples:
  toolformer serve --checkpoint runs/tuned --tools calculator,calendar
  toolformer serve --checkpoint runs/tuned --host 0.0.0.0 --api_key_file keys.txt
  toolformer serve --checkpoint smollm2-135m --adapter math=runs/math --adapter dates=runs/dates
"""

import argparse
import importlib.util
import pathlib
import sys

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.standard_output import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser, with_adapter=False)
  options.add_adapters(parser, 'requests choose an adapter by its name as their `model`')
  parser.add_argument('--tools', default=[], metavar='A,B', type=options.names,
                      help='tools that texts may call, separated by commas (default: none)')
  parser.add_argument('--host', default='127.0.0.1', metavar='H',
                      help='address to listen on; 0.0.0.0 for all of this machine, then with a key '
                           '(default: %(default)s)')
  parser.add_argument('--port', type=options.port, default=8000, metavar='N',
                      help='port to listen on; 0 for any that is free (default: %(default)s)')
  parser.add_argument('--api_key_file', type=pathlib.Path, metavar='F',
                      help='the keys that clients must have, one a line')
  parser.add_argument('--drain_s', type=_seconds, default=30.0, metavar='S',
                      help='how long requests may go on after SIGTERM (default: %(default)s)')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  _check_packages()
  config = options.configuration(args)
  adapters = options.adapters_by_name(args)
  name = pathlib.PurePath(args.checkpoint).name.removesuffix('.gguf')
  if name in adapters:
    raise UserError(f'--adapter {name}=...: this is the name of the model; choose another')
  from toolformer_jax.serving import server
  from toolformer_jax.serving.guard import read_keys
  keys = read_keys(args.api_key_file) if args.api_key_file else []
  bound = server.bind(args.host, args.port)
  if not (keys or args.host in server.LOOPBACK):
    raise UserError(f'--host {args.host}: other machines could use the server; it needs an '
                    '--api_key_file')
  from toolformer_jax import api
  from toolformer_jax.tools.registry import build_tools
  tools = build_tools(args.tools, config.toolbox)
  model = api.load_model(args.checkpoint, config=config.model, adapter=args.adapter,
                         adapters=adapters).for_inference()
  with server.open_executor(tools, config.executor, config.engine.slots, config.serving,
                            config.syntax) as executor:
    app_state = server.make_app_state(
        model, executor, name=name, generation=config.generation, engine_config=config.engine,
        limits=config.serving, syntax=config.syntax)
    only_local = args.host in server.LOOPBACK
    host = f'[{args.host}]' if ':' in args.host else args.host
    bound.listen()  # who reads the address may connect at once, and waits for the server
    print_result(f'http://{host}:{bound.getsockname()[1]}/')
    code = server.Server(app_state, bound, keys=keys, only_local=only_local,
                         drain_s=args.drain_s).run()
  if code:
    sys.exit(code)


def _check_packages() -> None:
  """Raises UserError if a package of the extra `serve` is missing; loads none of them."""
  for name in ('prometheus_client', 'pydantic', 'starlette', 'uvicorn'):
    if importlib.util.find_spec(name) is None:
      raise UserError(f"serve needs {name}: pip install 'toolformer_jax[serve]'")


def _seconds(text: str) -> float:
  try:
    seconds = float(text)
  except ValueError:
    seconds = -1
  if not 0 <= seconds <= 86_400:
    raise UserError(f'--drain_s: {text!r} is not a number of seconds from 0 to 86400')
  return seconds
