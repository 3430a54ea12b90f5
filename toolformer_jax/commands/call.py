"""Calls a tool and prints its result, as a model would see it.

If the tool has no result, the exit code is 2.

Examples:
  toolformer call calculator '400 / 1400'
  toolformer call calendar --date 2023-01-30
  toolformer call ocr 'image 1' --media receipt.png
  toolformer call my_tools.py:upper cat
"""

import argparse

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.media.table import MediaTable
from toolformer_jax.runtime.standard_output import print_result
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.executor import Executor, Request
from toolformer_jax.tools.registry import build_tools


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('tool', metavar='TOOL',
                      help='calculator, calendar, mt, qa, wikisearch, ocr, recognize, '
                           'transcribe, frames, speak, a tool of CustomToolsConfig, or a '
                           'function, my_tools.py:upper')
  parser.add_argument('argument', metavar='ARGUMENT', nargs='?', default='',
                      help='the argument of the call; may begin with `-`')
  options.add_media(parser)
  options.add_date(parser)
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  config = options.configuration(args)
  context = Context(date=args.date, media=MediaTable.from_files(args.media, config.toolbox.media))
  tool, = build_tools([args.tool], config.toolbox)
  with Executor([tool], config.executor, syntax=config.syntax) as executor:
    request = Request(tool.name, args.argument, context)
    outcome, = executor.run([request])
  if outcome.result is None:
    raise UserError(f'no result: {outcome.failure}')
  print_result(outcome.result)
