"""Downloads a named model, corpus or benchmark, checks it, and prints where it is.

Models and corpora go to the cache, $TOOLFORMER_CACHE or ~/.cache/toolformer_jax, or that of the
Hugging Face hub. Benchmarks go to the folder that `evaluate --data_dir` reads. An interrupted
download continues where it stopped.

Examples:
  toolformer fetch smollm2-135m
  toolformer fetch svamp --output_dir data
  toolformer fetch --list
"""

import argparse
import pathlib

from toolformer_jax.data.benchmarks import BENCHMARKS, fetch_benchmarks
from toolformer_jax.data.catalogue import CATALOGUE, fetch
from toolformer_jax.data.hub_models import download_model
from toolformer_jax.data.listing import catalogue_table
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.standard_output import print_result

_ALL = 'benchmarks'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('name', metavar='NAME', nargs='?',
                      help=f'{", ".join(CATALOGUE)}, a model hf://ORG/NAME; {_ALL}, or one of '
                           f'{", ".join(BENCHMARKS)}')
  parser.add_argument('--list', action='store_true', help='print what can be fetched')
  parser.add_argument('--output_dir', type=pathlib.Path, metavar='D',
                      help='the folder for benchmarks, a folder in it for each')
  parser.add_argument('--accept_terms', action='store_true',
                      help='you have read the terms of use of what is fetched, and accept them')


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  if args.list:
    print_result(catalogue_table())
  elif args.name is None:
    raise UserError('what is to be fetched? `toolformer fetch --list` prints what there is')
  elif args.name == _ALL or args.name in BENCHMARKS:
    if args.output_dir is None:
      raise UserError(f'{args.name} needs --output_dir D, the folder for `evaluate --data_dir D`')
    fetch_benchmarks(list(BENCHMARKS) if args.name == _ALL else [args.name], args.output_dir)
    print_result(args.output_dir)
  elif args.output_dir is not None:
    raise UserError('--output_dir is for benchmarks; models and corpora go to the cache')
  elif args.name.startswith('hf://'):
    print_result(download_model(args.name))
  else:
    print_result(fetch(args.name, accept_terms=args.accept_terms))
