"""Brings a named model or corpus to the local cache, checks it, and prints its path.

The cache is $TOOLFORMER_CACHE, or ~/.cache/toolformer_jax.
"""

import argparse

from toolformer_jax.fetch import CATALOGUE, fetch


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('name', metavar='NAME', help=', '.join(CATALOGUE))


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  print(fetch(args.name))
