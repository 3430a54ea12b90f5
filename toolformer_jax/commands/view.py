"""Shows an annotation run in a browser: its texts with their calls, losses and gains.

DIR is the OUTPUT_DIR of annotate. The run may still be in progress: reload the page to see new
results. The command prints the address of the page, which only browsers on this machine can open.
Ctrl-C ends it.

Examples:
  toolformer view runs/annotated
"""

import argparse
import contextlib

from toolformer_jax.commands import options
from toolformer_jax.runtime.standard_output import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('directory', metavar='DIR', type=options.path,
                      help='the output folder of annotate')
  parser.add_argument('--port', type=options.port, default=8765, metavar='N',
                      help='port of the server; 0 for any free port (default: %(default)s)')


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  from toolformer_jax.view.data import LiveRun
  from toolformer_jax.view.server import ADDRESS, make_server
  live_run = LiveRun(args.directory)
  live_run.read()  # reports a broken run before the server starts
  with make_server(live_run, args.port) as server, contextlib.suppress(KeyboardInterrupt):
    print_result(f'http://{ADDRESS}:{server.server_port}/')
    server.serve_forever()
