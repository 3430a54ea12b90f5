"""Shows an annotation run in a browser: its texts with their calls, losses and gains.

DIR is the OUTPUT_DIR of annotate. The run may still be in progress: reload the page to see new
results. With --checkpoint, which is the model that annotated the run, each call has a page that
tells why it is kept or rejected, token by token. The command prints the address of the page, which
only browsers on this machine can open. Ctrl-C ends it.

Examples:
  toolformer view runs/annotated
  toolformer view runs/annotated --checkpoint smollm2-135m
"""

import argparse
import contextlib
from typing import TYPE_CHECKING

from toolformer_jax.checkpoints.names import check_checkpoint
from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.standard_output import print_result

if TYPE_CHECKING:
  from toolformer_jax.annotation.token_losses import TokenLosses
  from toolformer_jax.calls import Call
  from toolformer_jax.view.data import LiveRun
  from toolformer_jax.view.why import Explain


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('directory', metavar='DIR', type=options.path,
                      help='the output folder of annotate')
  parser.add_argument('--checkpoint', metavar='C',
                      help='the model that annotated the run, for the losses of single tokens')
  parser.add_argument('--port', type=options.port, default=8765, metavar='N',
                      help='port of the server; 0 for any free port (default: %(default)s)')


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  from toolformer_jax.view.data import LiveRun
  from toolformer_jax.view.server import ADDRESS, make_server
  if args.checkpoint:
    check_checkpoint(args.checkpoint)
  live_run = LiveRun(args.directory)
  live_run.read()  # reports a broken run before the server starts
  explain = model_losses(args.checkpoint, live_run) if args.checkpoint else None
  with make_server(live_run, args.port, explain) as server, contextlib.suppress(KeyboardInterrupt):
    print_result(f'http://{ADDRESS}:{server.server_port}/')
    server.serve_forever()


def model_losses(checkpoint: str, live_run: 'LiveRun') -> 'Explain':
  """Returns a function that computes the losses of a call of the run.

  Raises:
    UserError: the model cannot be loaded, or is not the one that annotated the run.
  """
  from toolformer_jax import api
  from toolformer_jax.annotation.token_losses import token_losses
  from toolformer_jax.checkpoints.any_model import model_fingerprint
  live_run.check_model(model_fingerprint(checkpoint))
  model = api.load_model(checkpoint).for_inference()
  live_run.check_tokenizer(model.tokenizer)
  syntax = live_run.syntax

  def explain(text: str, call: 'Call', position: int) -> 'TokenLosses':
    try:
      written = syntax.linearise(call)
    except ValueError as error:
      raise UserError(str(error)) from error
    return token_losses(model, text, call=written, position=position, syntax=syntax)
  return explain
