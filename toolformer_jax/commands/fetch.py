"""Downloads a named model or corpus to the local cache, checks it, and prints its path.

The cache is $TOOLFORMER_CACHE, or ~/.cache/toolformer_jax.
"""

import argparse

from toolformer_jax.data.catalogue import CATALOGUE, fetch
from toolformer_jax.runtime.standard_output import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('name', metavar='NAME', help=', '.join(CATALOGUE))
  parser.add_argument('--accept_terms', action='store_true',
                      help='you have read the terms of use of what is fetched, and accept them')


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  print_result(fetch(args.name, accept_terms=args.accept_terms))
