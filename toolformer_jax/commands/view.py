"""Shows an annotation run in a browser: its texts with their calls, the losses, and the gains.

DIR is the OUTPUT_DIR of annotate. It is only read, and the run may still be in progress: reload the
page to see new results. The address of the page is printed; only browsers on this machine can open
it. Ctrl-C ends the command.
"""

import argparse
import contextlib
import pathlib

from toolformer_jax.commands import options
from toolformer_jax.runtime.standard_output import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('directory', metavar='DIR', type=pathlib.Path,
                      help='the output folder of annotate')
  parser.add_argument('--port', type=options.port, default=8765, metavar='N',
                      help='port of the address; 0 for any that is free (default: %(default)s)')


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax.view.data import LiveRun
  from toolformer_jax.view.server import ADDRESS, make_server
  live_run = LiveRun(args.directory)
  live_run.read()  # a broken run is refused now, and the first page is fast
  with make_server(live_run, args.port) as server, contextlib.suppress(KeyboardInterrupt):
    print_result(f'http://{ADDRESS}:{server.server_port}/')
    server.serve_forever()
